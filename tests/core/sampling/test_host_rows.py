"""Distributions and draws on the host: equal to torch's."""

import numpy as np
import pytest
import torch

from specdec_core.sampling.filters import SamplingParams, probabilities
from specdec_core.sampling.host_draw import block_size, block_sums, draw_on_host
from specdec_core.sampling.host_rows import HostRow, host_rows
from specdec_core.sampling.noise import draw

VOCABS = [1, 2, 5, 64, 1000, 3072, 50_257]


def _params(**changed) -> SamplingParams:
    return SamplingParams.of(**{"temperature": 0.8, **changed})


def _logits(rows: int, vocab: int, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("filters", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.2}, {"temperature": 0.0}])
def test_filters_are_applied(filters):
    logits = _logits(2, 100)
    got = np.stack([row.probs for row in host_rows(logits, _params(**filters))])
    torch.testing.assert_close(torch.from_numpy(got), probabilities(logits, _params(**filters)))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_of_another_kind_are_computed_in_float32(kind):
    logits = _logits(2, 100).to(kind)
    got = np.stack([row.probs for row in host_rows(logits, _params())])
    torch.testing.assert_close(torch.from_numpy(got), probabilities(logits, _params()))


def test_columns_of_wider_logits_are_read_in_their_places():
    logits = _logits(3, 120)[:, :100]
    got = np.stack([row.probs for row in host_rows(logits, _params())])
    torch.testing.assert_close(torch.from_numpy(got), probabilities(logits, _params()))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_shows_in_what_is_drawn(bad):
    logits = _logits(1, 100)
    logits[0, 7] = bad
    (row,) = host_rows(logits, _params())
    assert np.isnan(row.probs[row.draw(0.5)])
    assert np.isnan(row.probs[row.draw_residual(row, 0.5)])


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize("shape", ["spread", "peaked", "sparse"])
def test_a_draw_is_the_inverse_of_the_distribution_function(vocab, shape):
    """Equal to `draw`, but for uniforms within rounding of an edge: there the ids beside it are right too."""
    weights = probabilities(_logits(1, vocab) * {"spread": 0.1, "peaked": 5, "sparse": 1}[shape], _params())[
        0
    ]
    if shape == "sparse":
        weights[torch.rand(vocab, generator=torch.Generator().manual_seed(1)) < 0.9] = 0
        weights[vocab // 2] = 0.5
    cdf = weights.double().cumsum(0).numpy()
    for uniform in [2**-49, *np.random.default_rng(5).random(500), 1 - 2**-49]:
        wanted = int(draw(weights, torch.tensor([uniform], dtype=torch.float64))[0])
        got = draw_on_host(weights.numpy(), uniform)
        assert weights[got] > 0
        if got != wanted:
            edge = cdf[min(got, wanted)]
            assert abs(edge - uniform * cdf[-1]) < 1e-6 * cdf[-1]


def test_unlikely_ids_beside_a_likely_one_keep_their_mass():
    """In float32, sums lose what is 1e-8 of them: a draw within a block must not."""
    weights = np.full(64, 1e-9, np.float32)
    weights[3] = 1
    tail = 60 * 1e-9 / (1 + 63e-9)
    drawn = {draw_on_host(weights, 1 - share * tail) for share in np.linspace(0.01, 0.99, 99)}
    assert len(drawn) > 50
    assert min(drawn) > 3


def test_a_weight_of_zero_at_the_end_of_a_block_or_of_all_is_never_drawn():
    weights = np.zeros(1000, np.float32)
    size = block_size(1000)
    weights[[1, size - 2, size + 1, 900]] = [0.1, 0.2, 0.3, 0.4]
    drawn = {draw_on_host(weights, uniform) for uniform in np.linspace(1e-12, 1 - 2**-49, 5000)}
    assert drawn == {1, size - 2, size + 1, 900}


@pytest.mark.parametrize("vocab", VOCABS[1:])
def test_blocks_are_few_and_small(vocab):
    blocks = -(-vocab // block_size(vocab))
    assert max(blocks, block_size(vocab)) <= 2 * vocab**0.5 + 1
    assert len(block_sums(np.ones(vocab, np.float32))) == blocks


def test_the_residual_of_equal_distributions_is_p():
    row = HostRow(np.array([0.25, 0.0, 0.75], np.float32))
    assert {row.draw_residual(row, uniform) for uniform in (0.1, 0.5, 0.9)} == {0, 2}
