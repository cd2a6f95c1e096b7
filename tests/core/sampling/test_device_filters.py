"""Filters on a device: equal to those of the host, however many logits are equal, or known to overflow."""

from itertools import product

import pytest
import torch
from torch import Tensor

from specdec_core.sampling.device_filters import (
    Distributions,
    FilterPath,
    RoundInputs,
    best_of_drafter,
    best_of_target,
    by_sorting,
    filter_path,
    min_p_only,
    temperature_only,
)
from specdec_core.sampling.filters import SamplingParams, filtered_logits

SIZES = [(9000, 4096), (600, 64)]
"""Vocabulary, and ids that the filters look at."""
DTYPES = [torch.float32, torch.bfloat16]
KINDS = {"spread": 4.0, "flat": 0.3, "few values": 2.0}
COMBINATIONS = list(product([0, 1, 50, 4096, 5000], [1e-9, 0.3, 0.9, 1.0], [0.0, 0.05, 0.5, 1.0]))
"""top-k, top-p, min-p"""


def _logits(kind: str, dtype: torch.dtype, vocab: int, rows: int = 3) -> Tensor:
    logits = KINDS[kind] * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(5))
    return (logits.round() if kind == "few values" else logits).to(dtype)


def _params(temperature: float, top_k: int, top_p: float, min_p: float) -> SamplingParams:
    return SamplingParams.of(temperature, top_k=top_k, top_p=top_p, min_p=min_p)


def _inputs(params: SamplingParams, vocab: int, width: int) -> RoundInputs:
    inputs = RoundInputs.on("cpu")
    inputs.set_params(params, vocab, width)
    return inputs


def _probs(distributions: Distributions, vocab: int) -> Tensor:
    if distributions.ids is None:
        return distributions.probs
    probs = torch.zeros(distributions.rows, vocab)
    return probs.scatter(-1, distributions.ids, distributions.probs)


def _assert_equal(got: Tensor, expected: Tensor) -> None:
    assert torch.equal(got > 0, expected > 0)
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("vocab", "width"), SIZES)
def test_rows_equal_the_host_s_unless_they_overflow(vocab, width, kind, dtype):
    temperature = 0.7 if vocab == 9000 else 1.3
    logits = _logits(kind, dtype, vocab)
    exact = overflowing = 0
    for combination in COMBINATIONS:
        params = _params(temperature, *combination)
        expected = filtered_logits(logits, params).softmax(-1)
        inputs, scores = _inputs(params, vocab, width), torch.zeros(len(logits), vocab)
        path = filter_path(params, vocab, width)
        if path is FilterPath.NONE:
            _assert_equal(_probs(temperature_only(logits, inputs), vocab), expected)
        elif path is FilterPath.MIN_P:
            _assert_equal(_probs(min_p_only(logits, inputs), vocab), expected)
        elif path is FilterPath.BEST:
            target = best_of_target(logits, inputs, width, scores)
            over = target.overflow > 0
            _assert_equal(_probs(target, vocab)[~over], expected[~over])
            assert not ((expected > 0).sum(-1) > width)[~over].any()
            _assert_equal(_probs(by_sorting(scores, inputs), vocab), expected)
            exact, overflowing = exact + int((~over).sum()), overflowing + int(over.sum())
        else:
            _assert_equal(_probs(by_sorting(logits * inputs.inverse_temperature, inputs), vocab), expected)
    assert exact > 100
    assert overflowing > 0 or kind != "flat"


@pytest.mark.parametrize("top_p", [0.99, 0.9999])
@pytest.mark.parametrize("dtype", DTYPES)
def test_only_ids_whose_mass_reaches_a_large_p_up_to_rounding_differ(dtype, top_p):
    vocab, width = SIZES[0]
    params = SamplingParams.of(0.6, top_p=top_p)
    logits = _logits("spread", dtype, vocab)
    target = best_of_target(logits, _inputs(params, vocab, width), width, torch.zeros(len(logits), vocab))
    assert not target.overflow.any()
    kept = _probs(target, vocab) > 0
    ordered, order = (logits.double() / 0.6).sort(dim=-1, descending=True, stable=True)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs
    for limit, must_be_kept in ((top_p - 2e-6, True), (top_p + 2e-6, False)):
        decided = before < limit if must_be_kept else before >= limit
        assert (kept.gather(-1, order)[decided] == must_be_kept).all()


@pytest.mark.parametrize("values", [[3.0, 1.0], [3.0, 1.0, 0.0, -1.0]])
def test_of_equal_logits_top_p_keeps_those_with_the_lowest_ids(values):
    """Only one of three equal best is needed for a third of the mass, whatever order topk has."""
    logits = torch.tensor(values).repeat_interleave(40)[None, torch.randperm(40 * len(values))]
    for top_p in (0.2, 0.5, 0.8):
        params = SamplingParams.of(top_p=top_p)
        inputs = _inputs(params, logits.shape[-1], 60)
        target = best_of_target(logits, inputs, 60, torch.zeros_like(logits))
        assert not target.overflow.any()
        _assert_equal(_probs(target, logits.shape[-1]), filtered_logits(logits, params).softmax(-1))


@pytest.mark.parametrize(
    ("equal", "overflows"), [(3, False), (4, True)], ids=["the last is worse", "the last is equal"]
)
@pytest.mark.parametrize("params", [{"top_k": 2}, {"top_p": 0.4}, {"top_p": 0.9, "min_p": 0.9}])
def test_a_row_overflows_where_the_last_ids_looked_at_equal_one_that_is_kept(equal, overflows, params):
    """Then ids outside may be kept in their place. Of 40 ids the first few are equal, and four looked at."""
    logits = torch.full((1, 40), -9.0)
    logits[:, :equal] = 1.0
    params = SamplingParams.of(**params)
    target = best_of_target(logits, _inputs(params, 40, 4), 4, torch.zeros_like(logits))
    assert bool(target.overflow > 0) == overflows


def test_masked_ids_outside_of_the_best_are_no_overflow():
    logits = torch.full((1, 40), -torch.inf)
    logits[:, :3] = torch.tensor([0.1, 0.3, 0.2])
    params = SamplingParams.of(top_p=0.99999)
    target = best_of_target(logits, _inputs(params, 40, 4), 4, torch.zeros_like(logits))
    assert not target.overflow.any()
    _assert_equal(_probs(target, 40), filtered_logits(logits, params).softmax(-1))


@pytest.mark.parametrize("kind", ["spread", "flat"])
def test_a_drafter_s_row_is_filtered_as_if_only_its_best_ids_existed(kind):
    vocab, width = SIZES[1]
    logits = _logits(kind, torch.float32, vocab, rows=1)
    worst = logits.topk(width).values[:, -1:]
    alone = logits.masked_fill(logits < worst, -torch.inf)
    for combination in product([0, 1, 50], [0.3, 0.9], [0.0, 0.05]):
        params = _params(0.8, *combination)
        got = best_of_drafter(logits, _inputs(params, vocab, width), width)
        assert got.overflow is None
        _assert_equal(_probs(got, vocab), filtered_logits(alone, params).softmax(-1))


@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p", "vocab", "path"),
    [
        (0, 1.0, 0.0, 128_256, FilterPath.NONE),
        (0, 1.0, 0.1, 128_256, FilterPath.MIN_P),
        (0, 0.9, 0.1, 128_256, FilterPath.BEST),
        (4095, 1.0, 0.0, 128_256, FilterPath.BEST),
        (4096, 1.0, 0.0, 128_256, FilterPath.SORTED),
        (50, 0.9, 0.0, 8192, FilterPath.SORTED),
        (50, 0.9, 0.0, 8193, FilterPath.BEST),
    ],
)
def test_the_cheapest_way_is_chosen(top_k, top_p, min_p, vocab, path):
    assert filter_path(_params(1.0, top_k, top_p, min_p), vocab) is path


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
@pytest.mark.parametrize("path", list(FilterPath))
def test_a_row_that_is_not_finite_has_probabilities_of_nan_and_no_overflow(path, bad):
    logits = _logits("spread", torch.float32, 600)
    logits[1, 7] = bad
    if bad == -torch.inf:
        logits[1] = bad
    params = _params(1.0, 20, 0.9, 0.01)
    inputs = _inputs(params, 600, 64)
    made = {
        FilterPath.NONE: lambda: temperature_only(logits, inputs),
        FilterPath.MIN_P: lambda: min_p_only(logits, inputs),
        FilterPath.BEST: lambda: best_of_target(logits, inputs, 64, torch.zeros_like(logits)),
        FilterPath.SORTED: lambda: by_sorting(logits, inputs),
    }[path]()
    probs = _probs(made, 600)
    assert probs[0].isfinite().all()
    assert made.probs[1].isnan().all()
    assert probs[2].isfinite().all()
    assert made.overflow is None or not (made.overflow > 0).any()
