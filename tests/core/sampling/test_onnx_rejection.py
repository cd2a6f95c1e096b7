"""Speculative sampling on ONNX Runtime: equal to the host's, draw for draw."""

import sys

import numpy as np
import pytest
import torch

from specdec_core.sampling import sampler_for
from specdec_core.sampling.base import Sampler
from specdec_core.sampling.filters import SamplingParams, probabilities
from specdec_core.sampling.host import RejectionSampler
from specdec_core.sampling.noise import KeyedNoise, draw
from specdec_core.sampling.onnx_rejection import OnnxRejectionSampler
from specdec_core.settings import MAX_GAMMA, Settings

VOCABS = [1, 2, 5, 64, 1000, 3072, 50_257]
PARAMS = SamplingParams.of(0.8)


class _Noise(KeyedNoise):
    """The same uniforms at every position."""

    def __init__(self, draft: float = 0.5, accept: float = 0.5, residual: float = 0.5) -> None:
        super().__init__(0)
        self._all = draft, accept, residual

    def uniforms(self, positions: range):
        drawn = super().uniforms(positions)
        for stream, value in zip((drawn.draft, drawn.accept, drawn.residual), self._all, strict=True):
            stream[:] = [value] * len(positions)
        return drawn


def _logits(rows: int, vocab: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


def _round(sampler: Sampler, drafts: torch.Tensor | list[int], target: torch.Tensor):
    """A round with drafts from rows of logits [gamma, vocab], or taken."""
    gamma = len(drafts)
    sampler.start_round([1, 2], gamma)
    if isinstance(drafts, list):
        sampler.take(drafts)
    else:
        for step in range(gamma):
            drawn = sampler.draft(step)(drafts[step : step + 1])
            assert drawn.tolist() == sampler.rows[-1:].tolist()
    return sampler.read(sampler.verify(target))


def _assert_alike(got, wanted) -> None:
    assert (got.drafts, got.accepted, got.token) == (wanted.drafts, wanted.accepted, wanted.token)
    assert (got.token_drafter_prob is None) == (wanted.token_drafter_prob is None)
    for one, other in (
        (got.target_probs, wanted.target_probs),
        (got.drafter_probs, wanted.drafter_probs),
        (got.token_target_prob, wanted.token_target_prob),
        (got.token_drafter_prob or 0.0, wanted.token_drafter_prob or 0.0),
    ):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("vocab", VOCABS)
def test_rounds_equal_the_hosts(vocab):
    sampler, accepted = OnnxRejectionSampler(PARAMS, KeyedNoise(7)), set()
    for seed in range(25):
        host = RejectionSampler(PARAMS, KeyedNoise(7))
        target = _logits(MAX_GAMMA + 1, vocab, seed)
        for gamma in (0, 1, 3, 5, MAX_GAMMA, 2):  # one sampler for all: rows of longer rounds stay behind
            drafts = target[:gamma] + _logits(gamma, vocab, seed + 1000) / 3
            got = _round(sampler, drafts, target[: gamma + 1])
            _assert_alike(got, _round(host, drafts, target[: gamma + 1]))
            accepted.add(got.accepted == gamma)
            taken = probabilities(drafts, PARAMS).argmax(-1).tolist()
            got = _round(sampler, taken, target[: gamma + 1])
            _assert_alike(got, _round(host, taken, target[: gamma + 1]))
    assert accepted == {True, False} or vocab == 1


def test_it_is_the_default_where_nothing_is_filtered(monkeypatch):
    assert isinstance(sampler_for(Settings(temperature=0.8), KeyedNoise(1)), OnnxRejectionSampler)
    for changed in ({"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}):
        assert isinstance(sampler_for(Settings(**changed), KeyedNoise(1)), RejectionSampler)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert isinstance(sampler_for(Settings(temperature=0.8), KeyedNoise(1)), RejectionSampler)


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("shape", ["spread", "peaked", "sparse"])
def test_a_draw_is_the_inverse_of_the_distribution_function(vocab, shape):
    """Equal to `draw`, but for uniforms within rounding of an edge: there the ids beside it are right too."""
    logits = _logits(1, vocab) * {"spread": 0.1, "peaked": 5, "sparse": 1}[shape]
    if shape == "sparse":
        kept = torch.rand(vocab, generator=torch.Generator().manual_seed(1)) > 0.9
        kept[vocab // 2] = True
        logits[0, ~kept] = -torch.inf
    weights = probabilities(logits, PARAMS)[0]
    cdf = weights.double().cumsum(0).numpy()
    for uniform in [2**-49, *np.random.default_rng(5).random(200), 1 - 2**-49]:
        wanted = int(draw(weights, torch.tensor([uniform], dtype=torch.float64))[0])
        got = _round(OnnxRejectionSampler(PARAMS, _Noise(residual=uniform)), [], logits).token
        assert weights[got] > 0
        if got != wanted:
            assert abs(cdf[min(got, wanted)] - uniform * cdf[-1]) < 1e-6 * cdf[-1]


def test_unlikely_ids_beside_a_likely_one_keep_their_mass():
    """In float32, sums lose what is 1e-8 of them: a draw must not."""
    params = SamplingParams.of(1.0)
    logits = torch.full((1, 64), 1e-9).log()
    logits[0, 3] = 0
    tail = 60e-9 / (1 + 63e-9)
    drawn = {
        _round(OnnxRejectionSampler(params, _Noise(residual=1 - share * tail)), [], logits).token
        for share in np.linspace(0.01, 0.99, 99)
    }
    assert len(drawn) > 50
    assert min(drawn) > 3


def test_where_p_and_q_agree_every_draft_is_accepted():
    logits = _logits(3, 100)
    got = _round(OnnxRejectionSampler(PARAMS, _Noise(accept=1 - 2**-49)), logits[:2], logits)
    assert got.accepted == 2
    assert got.token_drafter_prob is None


def test_without_a_residual_the_token_is_drawn_from_p():
    """p is below q at the draft by rounding, and nowhere above it."""
    for seed in range(5):
        logits = _logits(2, 100, seed)
        sampler = OnnxRejectionSampler(PARAMS, _Noise(draft=0.3, accept=0.5, residual=0.7))
        sampler.start_round([1, 2], 1)
        draft = int(sampler.draft(0)(logits[:1])[0])
        sampler._buffers.q.clamp_(min=1.0)
        sampler._numbers[2] = 1e9  # q of the draft
        got = sampler.read(sampler.verify(logits))
        assert (got.drafts, got.accepted) == ([draft], 0)
        p = probabilities(logits[:1], PARAMS)[0]
        assert got.token == int(draw(p, torch.tensor([0.7], dtype=torch.float64))[0])
        assert got.token_target_prob == pytest.approx(float(p[got.token]), rel=1e-5)
        assert got.token_drafter_prob == 1.0


@pytest.mark.parametrize("one_hot", [False, True], ids=["model", "n-gram"])
def test_a_rejected_draft_that_has_all_of_q_is_never_the_correction(one_hot):
    target = torch.zeros(2, 10)
    for residual in np.linspace(0.001, 0.999, 50):
        sampler = OnnxRejectionSampler(PARAMS, _Noise(accept=0.999, residual=residual))
        certain = torch.full((1, 10), -torch.inf)
        certain[0, 4] = 0
        got = _round(sampler, [4] if one_hot else certain, target)
        assert (got.accepted, got.drafts) == (0, [4])
        assert got.token != 4
        assert got.token_drafter_prob == 0.0


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("model", ["target", "drafter"])
def test_a_row_that_is_not_finite_shows_in_the_verdict(bad, model):
    target, drafts = _logits(3, 100), _logits(2, 100, 1)
    row = (target if model == "target" else drafts)[0]
    row[slice(None) if bad == -torch.inf else 7] = bad
    assert _round(OnnxRejectionSampler(PARAMS, KeyedNoise(1)), drafts, target).not_finite == model
    if model == "target":
        assert _round(OnnxRejectionSampler(PARAMS, KeyedNoise(1)), [], target[:1]).not_finite == model
        assert _round(OnnxRejectionSampler(PARAMS, KeyedNoise(1)), [3], target[:2]).not_finite == model


def test_no_draft_follows_the_end():
    sampler = OnnxRejectionSampler(PARAMS, KeyedNoise(1), eos_ids={6})
    sampler.start_round([1, 2], 3)
    for step, (token, complete) in enumerate([(2, False), (6, True)]):
        logits = torch.full((1, 10), -20.0)
        logits[0, token] = 20
        sampler.draft(step)(logits)
        assert sampler.complete == complete
    assert sampler.rows.tolist() == [2, 2, 6]
    assert _round(sampler, [2, 6, 3], torch.zeros(3, 10)).drafts == [2, 6]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_another_kind_are_computed_in_float32(kind):
    sampler = OnnxRejectionSampler(PARAMS, KeyedNoise(3))
    for seed in range(3):
        target, drafts = _logits(3, 100, seed).to(kind), _logits(2, 100, seed + 50).to(kind)
        host = RejectionSampler(PARAMS, KeyedNoise(3))
        _assert_alike(_round(sampler, drafts, target), _round(host, drafts, target))


def test_columns_of_wider_logits_are_read_in_their_places():
    target, drafts = _logits(3, 120)[:, :100], _logits(2, 120, 1)[:, :100]
    got = _round(OnnxRejectionSampler(PARAMS, KeyedNoise(3)), drafts, target)
    _assert_alike(got, _round(RejectionSampler(PARAMS, KeyedNoise(3)), drafts, target))


def test_new_logits_in_the_same_memory_are_read():
    sampler, target = OnnxRejectionSampler(PARAMS, KeyedNoise(3)), _logits(1, 100)
    for seed in range(20):
        target.copy_(_logits(1, 100, seed))
        _assert_alike(
            _round(sampler, [], target), _round(RejectionSampler(PARAMS, KeyedNoise(3)), [], target)
        )
