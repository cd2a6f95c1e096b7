"""Filters, draws, and noise as a function of seed, position and purpose."""

import pytest
import torch
from scipy.stats import chisquare, kstest

from specdec_core.sampling.filters import SamplingParams, probabilities
from specdec_core.sampling.host_draw import draw_on_host
from specdec_core.sampling.noise import KeyedNoise, draw

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
LOGITS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def _probs(logits=LOGITS, **changed):
    return probabilities(logits, SamplingParams.of(**{**PLAIN, **changed}))[0]


def test_unfiltered_probabilities_are_the_softmax():
    torch.testing.assert_close(_probs(), torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_temperature_zero_is_one_hot_at_the_first_of_the_best():
    assert _probs(torch.tensor([[1.0, 3.0, 3.0]]), temperature=0.0).tolist() == [0, 1, 0]


def test_a_tiny_temperature_does_not_overflow():
    assert _probs(100 * LOGITS, temperature=1e-6).tolist() == [1, 0, 0, 0]


def test_top_k_keeps_the_k_best_and_renormalizes():
    torch.testing.assert_close(_probs(top_k=2), torch.tensor([0.625, 0.375, 0, 0]))


def test_top_k_above_the_vocabulary_changes_nothing():
    torch.testing.assert_close(_probs(top_k=99), _probs())


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    torch.testing.assert_close(_probs(top_p=0.6), torch.tensor([0.625, 0.375, 0, 0]))


def test_top_p_near_zero_keeps_the_best():
    assert _probs(top_p=1e-6).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_a_nucleus_is_found_whatever_its_size_and_however_many_are_equal(top_p):
    """Against the definition by sorting, on rows of which one needs few tokens and one nearly all."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 2000, generator=generator) * torch.tensor([[4.0], [0.1], [1.0]])
    logits[2] = logits[2].round()
    ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = ordered.softmax(-1)
    kept = probs.cumsum(-1) - probs < top_p
    expected = torch.zeros_like(kept).scatter(-1, order, kept)
    nucleus = probabilities(logits, SamplingParams.of(**{**PLAIN, "top_p": top_p})) > 0
    # Where the mass reaches p only up to rounding, one token more or less may be kept.
    assert ((nucleus != expected).sum(-1) <= 1).all()


@pytest.mark.parametrize("offset", [0.0, 50.0, 10_000.0])
@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1.0])
def test_a_nucleus_of_equal_logits_does_not_depend_on_their_size(offset, temperature):
    """A low temperature makes them so large that float32 has no digits left beside them."""
    logits = torch.full((1, 17), offset)
    kept = _probs(logits, temperature=temperature, top_p=0.9) > 0
    assert kept.tolist() == [True] * 16 + [False]


def test_top_p_measures_what_top_k_left():
    """Of 0.5, 0.3 and 0.15 the first two are 84 %; of the whole they are 80 %."""
    assert _probs(top_k=3, top_p=0.82)[2] == 0
    assert _probs(top_p=0.82)[2] > 0


def test_min_p_drops_what_is_far_below_the_best():
    assert (_probs(min_p=0.5) > 0).tolist() == [True, True, False, False]


def test_filters_work_on_unordered_rows():
    shuffled = LOGITS[:, [2, 0, 3, 1]]
    torch.testing.assert_close(_probs(shuffled, top_p=0.6), torch.tensor([0, 0.625, 0, 0.375]))


def test_half_precision_logits_become_float32_probabilities():
    assert _probs(LOGITS.bfloat16()).dtype == torch.float32


def test_draw_follows_the_weights_and_never_draws_a_zero():
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 0.0])
    noise = KeyedNoise(7)
    counts = torch.zeros(5)
    for uniform in noise.uniforms(range(4000)).draft:
        counts[draw(weights, torch.tensor([uniform], dtype=torch.float64))[0]] += 1
    assert counts[[0, 2, 4]].sum() == 0
    assert chisquare(counts[[1, 3]], [3000, 1000]).pvalue > 1e-4


@pytest.mark.parametrize("uniform", [2**-49, 1 - 2**-49])
def test_draw_stays_inside_at_both_ends(uniform):
    weights = torch.tensor([0.0, 0.7, 0.3, 0.0])
    index, total = draw(weights, torch.tensor([uniform], dtype=torch.float64))
    drawn = index.item()
    assert total.item() == pytest.approx(1)
    assert drawn in (1, 2)
    assert draw_on_host(weights.numpy(), uniform) == drawn


def test_uniforms_are_uniform_and_repeat_for_the_same_key():
    values = KeyedNoise(3).uniforms(range(5000))
    for stream in (values.draft, values.accept, values.residual):
        assert kstest(stream, "uniform").pvalue > 1e-4
    assert values == KeyedNoise(3).uniforms(range(5000))


def test_noise_of_a_position_does_not_depend_on_earlier_calls():
    noise = KeyedNoise(3)
    for positions in (range(100, 105), range(103, 170), range(90, 92), range(160, 161)):
        assert noise.uniforms(positions) == KeyedNoise(3).uniforms(positions)


@pytest.mark.parametrize("other", [KeyedNoise(4).uniforms(range(5000)).accept,
                                   KeyedNoise(3).uniforms(range(5000)).draft,
                                   KeyedNoise(3).uniforms(range(5000)).residual,
                                   KeyedNoise(3).uniforms(range(1, 5001)).accept],
                         ids=["another seed", "draft", "residual", "another position"])  # fmt: skip
def test_streams_are_uncorrelated(other):
    values = KeyedNoise(3).uniforms(range(5000)).accept
    correlation = torch.corrcoef(torch.tensor([values, other]))[0, 1].item()
    assert abs(correlation) < 0.06


def test_gumbel_noise_is_gumbel_and_depends_on_position_and_id_alone():
    noise = KeyedNoise(5).gumbel(range(20, 24), 3000)
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 1e-4
    assert torch.equal(noise[2], KeyedNoise(5).gumbel(range(22, 23), 3000)[0])
    assert torch.equal(noise[:, :100], KeyedNoise(5).gumbel(range(20, 24), 100))


def test_negative_and_huge_seeds_are_seeds():
    for seed in (-1, 2**64 - 1, 0):
        assert len(set(KeyedNoise(seed).uniforms(range(3)).draft)) == 3


def test_without_a_seed_each_answer_gets_its_own():
    assert KeyedNoise(None).seed != KeyedNoise(None).seed
