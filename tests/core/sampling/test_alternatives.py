"""The likeliest tokens at every position of a round: on the host and in buffers, under every rule, against
probabilities computed from the logits.
"""

import pytest
import torch

from specdec_core.sampling import DeviceSampling, sampler_for
from specdec_core.sampling.alternatives import Likeliest
from specdec_core.sampling.filters import SamplingParams, probabilities
from specdec_core.sampling.host import RejectionSampler
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.settings import Settings

CONTEXT = [4, 5, 6]
GAMMA = 3
RULES = {
    "greedy": {"temperature": 0.0},
    "rejection": {"temperature": 0.9},
    "coupled": {"temperature": 0.9, "verification": "coupled"},
    "rejection, top-p": {"temperature": 0.9, "top_p": 0.8},
    "coupled, top-k and a ban": {
        "temperature": 0.9,
        "top_k": 4,
        "banned_tokens": [3],
        "verification": "coupled",
    },
}
PLACES = {"on the host": None, "in buffers": 4096, "in buffers for 45 ids": 45}


def _round(sampler, target, drafter, taken=None):
    sampler.start_round(CONTEXT, GAMMA)
    if taken is not None:
        sampler.take(taken)
    else:
        for step in range(GAMMA):
            sampler.draft(step)(drafter[step : step + 1])
    return sampler.read(sampler.verify(target))


def _sampler(where: str, vocab: int, settings: Settings):
    width = PLACES[where]
    buffers = None if width is None else DeviceSampling(torch.device("cpu"), vocab, width)
    return sampler_for(settings, KeyedNoise(3), buffers)


def _logits(vocab: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(8)
    target = 5 * torch.randn(GAMMA + 1, vocab, generator=generator)
    return target, target[:GAMMA] + torch.randn(GAMMA, vocab, generator=generator)


def _at_temperature(settings: Settings, logits: torch.Tensor) -> torch.Tensor:
    """The distribution of a rule; at temperature 0 that of temperature 1."""
    shown = Settings(temperature=1.0) if settings.temperature == 0 else settings
    return probabilities(logits, SamplingParams.from_settings(shown))


def _expected(likely: torch.Tensor, count: int) -> list[int]:
    found = likely.topk(min(count, len(likely)))
    return [token for token, p in zip(found.indices.tolist(), found.values.tolist(), strict=True) if p > 0]


@pytest.mark.parametrize("vocab", [5, 100])
@pytest.mark.parametrize("count", [1, 5, 20])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", PLACES)
@torch.inference_mode()
def test_they_are_the_likeliest_tokens_with_p_and_q(where, rule, count, vocab):
    settings = Settings(alternatives=count, **RULES[rule])
    target, drafter = _logits(vocab)
    verdict = _round(_sampler(where, vocab, settings), target, drafter)
    p, q = _at_temperature(settings, target), _at_temperature(settings, drafter)
    assert verdict.alternatives is not None
    assert len(verdict.alternatives) == GAMMA + 1
    for row, found in enumerate(verdict.alternatives):
        assert [each.id for each in found.target] == _expected(p[row], count)
        assert [each.target_prob for each in found.target] == pytest.approx(
            [p[row, each.id].item() for each in found.target], rel=1e-3
        )
        if row == GAMMA:
            assert found.drafter == []
            assert {each.drafter_prob for each in found.target} == {None}
            continue
        assert [each.id for each in found.drafter] == _expected(q[row], count)
        for each in (*found.target, *found.drafter):
            assert each.drafter_prob == pytest.approx(q[row, each.id].item(), rel=1e-3, abs=1e-7)
            assert each.target_prob == pytest.approx(p[row, each.id].item(), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", PLACES)
@torch.inference_mode()
def test_asking_for_them_changes_nothing_else(where, rule):
    target, drafter = _logits(100)
    without = _round(_sampler(where, 100, Settings(**RULES[rule])), target, drafter)
    with_them = _round(_sampler(where, 100, Settings(alternatives=3, **RULES[rule])), target, drafter)
    assert without.alternatives is None
    assert (without.drafts, without.accepted, without.token) == (
        with_them.drafts,
        with_them.accepted,
        with_them.token,
    )
    assert with_them.target_probs == pytest.approx(without.target_probs)
    assert with_them.drafter_probs == pytest.approx(without.drafter_probs)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("where", PLACES)
@torch.inference_mode()
def test_drafts_that_were_not_drawn_have_a_q_of_one(where, rule):
    target, _ = _logits(100)
    drafts = [7, 8, 9]
    sampler = _sampler(where, 100, Settings(alternatives=4, **RULES[rule]))
    _round(sampler, *_logits(100))
    verdict = _round(sampler, target, None, taken=drafts)
    found: list[Likeliest] = verdict.alternatives
    assert [[each.id for each in here.drafter] for here in found] == [[7], [8], [9], []]
    assert [here.drafter[0].drafter_prob for here in found[:3]] == [1.0] * 3


@torch.inference_mode()
def test_without_onnx_runtime_they_are_the_same():
    settings = Settings(alternatives=6, temperature=0.9)
    target, drafter = _logits(100)
    fast = _round(_sampler("on the host", 100, settings), target, drafter)
    slow = _round(
        RejectionSampler(SamplingParams.from_settings(settings), KeyedNoise(3), (), 6), target, drafter
    )
    assert [[each.id for each in here.target] for here in fast.alternatives] == [
        [each.id for each in here.target] for here in slow.alternatives
    ]
    assert fast.alternatives[0].target[0].target_prob == pytest.approx(
        slow.alternatives[0].target[0].target_prob
    )
