"""Chi-squared test of the output's distribution against the target's, which two wrong samplers must fail."""

import sys
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import ModelDrafter
from specdec_core.drafting.length import FixedGamma
from specdec_core.runners import EagerRunner
from specdec_core.sampling import DeviceSampling, Verdict, sampler_for
from specdec_core.sampling.base import count_to_end
from specdec_core.sampling.device_filters import DEFAULT_WIDTH, FilterPath
from specdec_core.sampling.device_rules import RejectionRule
from specdec_core.sampling.filters import SamplingParams, probabilities
from specdec_core.sampling.host import RejectionSampler
from specdec_core.sampling.host_rows import HostRow, host_rows
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.sampling.verification import walk_rejection
from specdec_core.settings import Settings
from tests.support.tiny_models import TrigramModel

pytestmark = pytest.mark.slow

VOCAB = 5
PROMPT = [1, 3]
ANSWERS = 2000
LOWEST_P = 1e-4
FILTERS = {
    "unfiltered": {},
    "top-k and top-p": {"top_k": 4, "top_p": 0.9},
    "min-p": {"min_p": 0.2},
    "top-p": {"top_p": 0.75},
}


def _models() -> tuple[EagerRunner, EagerRunner]:
    """A target, and a drafter that is a noisy copy of it: drafts are both accepted and rejected."""
    generator = torch.Generator().manual_seed(11)
    table = 1.5 * torch.randn((VOCAB, VOCAB, VOCAB), generator=generator)
    noise = torch.randn(table.shape, generator=generator)
    return EagerRunner(TrigramModel(table)), EagerRunner(TrigramModel(table + noise))


def _sample(settings: Settings, make_sampler=sampler_for) -> tuple[Counter, float]:
    """The first three tokens of many answers, and the acceptance rate over all of their drafts."""
    target, drafter = _models()
    joint: Counter = Counter()
    accepted = tested = 0
    for seed in range(ANSWERS):
        context = list(PROMPT)

        def ends(ids, context=context):
            enough = len(context) + len(ids) >= len(PROMPT) + 3
            return len(ids), "stop" if enough else None

        rounds = Decoding(
            context,
            target,
            target.new_cache(),
            ModelDrafter(drafter, drafter.new_cache()),
            make_sampler(settings, KeyedNoise(seed)),
            FixedGamma(settings.gamma),
            ends,
            Limits(settings.max_new_tokens, 512),
        ).rounds(lambda: False)
        for rnd in rounds:
            accepted += rnd.verdict.accepted
            tested += min(rnd.verdict.accepted + 1, len(rnd.verdict.drafts))
        joint[tuple(context[len(PROMPT) : len(PROMPT) + 3])] += 1
    return joint, accepted / tested


def _enumerated(settings: Settings) -> dict[tuple[int, ...], float]:
    """The target's own probability of every first three tokens."""
    table = _models()[0].model.table
    probs = probabilities(table.reshape(-1, VOCAB), SamplingParams.from_settings(settings)).view(table.shape)
    a, b = PROMPT
    return {
        (x, y, z): (probs[a, b, x] * probs[b, x, y] * probs[x, y, z]).item()
        for x, y, z in product(range(VOCAB), repeat=3)
    }


def _p_value(joint: Counter, expected: dict[tuple[int, ...], float]) -> float:
    """The p-value of a chi-squared test, with the cells that expect fewer than 5 pooled into one."""
    impossible = sum(count for cell, count in joint.items() if expected[cell] == 0)
    assert impossible == 0, "a filtered token was drawn"
    observed_cells, expected_cells = [], []
    pooled_observed = pooled_expected = 0.0
    for cell, probability in expected.items():
        if probability * ANSWERS < 5:
            pooled_observed += joint[cell]
            pooled_expected += probability * ANSWERS
        else:
            observed_cells.append(joint[cell])
            expected_cells.append(probability * ANSWERS)
    if pooled_expected > 0:
        observed_cells.append(pooled_observed)
        expected_cells.append(pooled_expected)
    scale = sum(observed_cells) / sum(expected_cells)
    return chisquare(observed_cells, [cell * scale for cell in expected_cells]).pvalue


CASES = [
    # Every two of a verification, a filter and a gamma are in one case together.
    ("on the host", "rejection", "unfiltered", 1),
    ("on the host", "rejection", "unfiltered", 2),
    ("on the host without ONNX Runtime", "rejection", "unfiltered", 2),
    ("on the host", "rejection", "top-k and top-p", 5),
    ("on the host", "coupled", "top-k and top-p", 1),
    ("on the host", "coupled", "top-k and top-p", 2),
    ("on the host", "coupled", "unfiltered", 5),
    # test_device.py shows that the others equal the host's, token for token.
    ("in device buffers", "rejection", "top-k and top-p", 2),
    ("in device buffers", "rejection", "min-p", 2),
    # Here drafts differ from the host's: they are of the two best. Rows of the target overflow.
    ("in device buffers for two ids", "rejection", "top-p", 3),
    ("in device buffers for two ids", "coupled", "top-p", 1),
]


def _buffers(where: str) -> DeviceSampling | None:
    widths = {"in device buffers": DEFAULT_WIDTH, "in device buffers for two ids": 2}
    return DeviceSampling(torch.device("cpu"), VOCAB, widths[where]) if where in widths else None


@pytest.mark.parametrize(("where", "verification", "filters", "gamma"), CASES, ids=lambda value: str(value))
def test_the_first_three_tokens_follow_the_target(where, verification, filters, gamma, monkeypatch):
    if where == "on the host without ONNX Runtime":
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
    sampling = _buffers(where)
    settings = Settings(
        max_new_tokens=8, temperature=1.0, gamma=gamma, verification=verification, **FILTERS[filters]
    )
    joint, alpha = _sample(settings, lambda settings, noise: sampler_for(settings, noise, sampling))
    assert 0.3 < alpha < 0.9, "the test has power only where drafts are both accepted and rejected"
    assert _p_value(joint, _enumerated(settings)) > LOWEST_P


class _AcceptsAlways(RejectionSampler):
    """It accepts every draft."""

    def start_round(self, context, gamma: int) -> None:
        super().start_round(context, gamma)
        self.uniforms = replace(self.uniforms, accept=[-1.0] * (gamma + 1))


class _DrawsFromTheTarget(RejectionSampler):
    """After a rejection it draws from p instead of the residual."""

    def verify(self, logits) -> Verdict:
        verdict = super().verify(logits)
        if verdict.accepted == len(verdict.drafts):
            return verdict
        p = host_rows(logits, self.params)[verdict.accepted]
        return replace(verdict, token=p.draw(self.uniforms.residual[verdict.accepted]))


@pytest.mark.parametrize("wrong", [_AcceptsAlways, _DrawsFromTheTarget])
def test_a_wrong_sampler_fails_the_same_test(wrong):
    settings = Settings(max_new_tokens=8, temperature=1.0, gamma=2)
    joint, _ = _sample(settings, lambda settings, noise: wrong(SamplingParams.from_settings(settings), noise))
    assert _p_value(joint, _enumerated(settings)) < LOWEST_P


class _KeepsToTheBest(RejectionRule):
    """It ignores rows that overflow."""

    def verdict(self, outcome, gamma: int) -> Verdict:
        return self._decoded(outcome, gamma).verdict


def test_a_sampler_that_ignores_overflow_fails_the_same_test():
    settings = Settings(max_new_tokens=8, temperature=1.0, gamma=2, **FILTERS["top-p"])
    sampling = _buffers("in device buffers for two ids")
    assert sampling is not None
    sampling._rules[RejectionRule, FilterPath.BEST] = _KeepsToTheBest(sampling, FilterPath.BEST)
    joint, _ = _sample(settings, lambda settings, noise: sampler_for(settings, noise, sampling))
    assert _p_value(joint, _enumerated(settings)) < LOWEST_P


def test_where_p_and_q_agree_every_draft_is_accepted_and_the_bonus_follows_p():
    p = _rows([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert walk_rejection(p, [p[0]], [0], [0.999], [0.3, 0.3]) == (1, 2)


def test_a_draft_that_the_target_excludes_is_rejected_and_the_residual_is_drawn():
    p = _rows([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    q = _rows([[0.5, 0.5, 0.0]])
    assert walk_rejection(p, q, [0], [1e-9], [0.5, 0.5]) == (0, 2)


def test_a_rejected_one_hot_draft_is_never_the_correction():
    p = _rows([[0.2, 0.5, 0.3], [0.0, 0.0, 1.0]])
    drawn = {walk_rejection(p, None, [1], [0.9], [uniform]) for uniform in np.linspace(0.001, 0.999, 99)}
    assert drawn == {(0, 0), (0, 2)}


def _rows(values) -> list[HostRow]:
    return [HostRow(np.array(row, np.float32)) for row in values]


@pytest.mark.parametrize("where", ["on the host", "in device buffers"])
def test_answers_that_end_inside_their_drafts_follow_the_target(where):
    """Answers of up to three tokens, ended by an EOS among them; no draft follows one."""
    eos, settings = 3, Settings(max_new_tokens=3, temperature=1.0, gamma=5)
    sampling = _buffers(where)
    expected: Counter = Counter()
    for tokens, probability in _enumerated(settings).items():
        expected[tokens[: count_to_end(tokens, {eos})]] += probability

    def ends(ids):
        count = count_to_end(ids, {eos})
        return count, "eos" if ids[count - 1] == eos else None

    target, drafter = _models()
    answers: Counter = Counter()
    for seed in range(ANSWERS):
        context = list(PROMPT)
        rounds = Decoding(
            context,
            target,
            target.new_cache(),
            ModelDrafter(drafter, drafter.new_cache()),
            sampler_for(settings, KeyedNoise(seed), sampling, {eos}),
            FixedGamma(settings.gamma),
            ends,
            Limits(settings.max_new_tokens, 512),
        ).rounds(lambda: False)
        assert not any(eos in rnd.verdict.drafts[:-1] for rnd in rounds)
        answers[tuple(context[len(PROMPT) :])] += 1
    assert _p_value(answers, expected) > LOWEST_P
