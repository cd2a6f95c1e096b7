"""Chi-squared test of the output's distribution against the target's, which two wrong samplers must fail."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import ModelDrafter, NgramDrafter
from specdec_core.drafting.length import FixedGamma
from specdec_core.runners import EagerRunner
from specdec_core.sampling import DeviceSampling, Verdict, sampler_for
from specdec_core.sampling.base import count_to_end
from specdec_core.sampling.device_filters import DEFAULT_WIDTH, FilterPath, FilterPlan
from specdec_core.sampling.device_rules import RejectionRule
from specdec_core.sampling.filters import SamplingParams
from specdec_core.sampling.history import History, drafts_before
from specdec_core.sampling.host import RejectionSampler
from specdec_core.sampling.host_rows import HostRow, host_rows
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.sampling.verification import walk_rejection
from specdec_core.settings import Settings
from tests.support.reference_sampling import reference_distribution
from tests.support.tiny_models import TrigramModel

pytestmark = pytest.mark.slow

VOCAB = 5
PROMPT = [1, 3]
ANSWERS = 1500
LOWEST_P = 1e-4
FILTERS = {
    "unfiltered": {},
    "top-k and top-p": {"top_k": 4, "top_p": 0.9},
    "min-p": {"min_p": 0.2},
    "top-p": {"top_p": 0.75},
    "typical-p": {"typical_p": 0.6},
    "repetition": {"repetition_penalty": 1.8},
    "frequency": {"frequency_penalty": 1.2},
    "presence": {"presence_penalty": 1.5},
    "bias": {"logit_bias": {0: 1.0, 3: -2.0}},
    "ban": {"banned_tokens": [2]},
    "repetition and top-p": {"repetition_penalty": 1.8, "top_p": 0.8},
    "frequency and typical-p": {"frequency_penalty": 1.2, "typical_p": 0.7},
    "presence and frequency": {"presence_penalty": -1.0, "frequency_penalty": 0.8},
    "bias and min-p": {"logit_bias": {1: 2.0}, "min_p": 0.1},
    "typical-p and top-k": {"typical_p": 0.8, "top_k": 4},
}


def _models(vocab: int = VOCAB) -> tuple[EagerRunner, EagerRunner]:
    """A target, and a drafter that is a noisy copy of it: drafts are both accepted and rejected."""
    generator = torch.Generator().manual_seed(11)
    table = 1.5 * torch.randn((vocab, vocab, vocab), generator=generator)
    noise = torch.randn(table.shape, generator=generator)
    return EagerRunner(TrigramModel(table)), EagerRunner(TrigramModel(table + noise))


def _decoded(models, sampler, settings: Settings, tokens: int) -> tuple[list[int], list[Verdict]]:
    """An answer of so many tokens or more, by Decoding."""
    target, drafter = models
    context = list(PROMPT)

    drafters = [ModelDrafter(drafter, drafter.new_cache())]
    rounds = _rounds(context, target, drafters, sampler, settings, _after(context, tokens))
    verdicts = [rnd.verdict for rnd in rounds]
    return context[len(PROMPT) :], verdicts


def _rounds(context, target, drafters, sampler, settings, ends):
    """The rounds of an answer, which is appended to `context`."""
    return Decoding(
        context,
        target,
        target.new_cache(),
        drafters,
        sampler,
        FixedGamma(settings.gamma),
        ends,
        Limits(settings.max_new_tokens, 512),
    ).rounds(lambda: False)


def _after(context: list[int], tokens: int):
    """The end of an answer that `context` grows by: with the round that makes it so many tokens long."""
    enough = len(context) + tokens
    return lambda ids: (len(ids), "stop" if len(context) + len(ids) >= enough else None)


def _sampled(models, sampler, settings: Settings, tokens: int) -> tuple[list[int], list[Verdict]]:
    """The same from the models' tables, without forwards, in a third of the time."""
    p_table, q_table = (runner.model.table for runner in models)
    context, verdicts = list(PROMPT), []
    while len(context) < len(PROMPT) + tokens:
        gamma = settings.gamma if verdicts else 0
        sampler.start_round(context, gamma)
        ids = list(context)
        for step in range(gamma):
            draft = sampler.draft(step)
            ids.append(int(draft(q_table[ids[-2], ids[-1]][None])))
        rows = [p_table[ids[at - 1], ids[at]] for at in range(len(context) - 1, len(ids))]
        verdict = sampler.read(sampler.verify(torch.stack(rows)))
        verdicts.append(verdict)
        context += [*verdict.drafts[: verdict.accepted], verdict.token]
    return context[len(PROMPT) :], verdicts


def _sample(
    settings: Settings, make_sampler=sampler_for, tokens: int = 3, models=None, decode=_decoded
) -> tuple[Counter, float]:
    """The first tokens of many answers, and the acceptance rate over all of their drafts."""
    models = models or _models()
    joint: Counter = Counter()
    accepted = tested = 0
    for seed in range(ANSWERS):
        answer, verdicts = decode(models, make_sampler(settings, KeyedNoise(seed)), settings, tokens)
        for verdict in verdicts:
            accepted += verdict.accepted
            tested += min(verdict.accepted + 1, len(verdict.drafts))
        joint[tuple(answer[:tokens])] += 1
    return joint, accepted / tested


def _enumerated(
    settings: Settings, tokens: int = 3, models=None, prompt=PROMPT
) -> dict[tuple[int, ...], float]:
    """The target's own probability of every first tokens of an answer."""
    table = (models or _models())[0].model.table
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(tokens):
        longer: dict[tuple[int, ...], float] = {}
        for answer, probability in found.items():
            a, b = [*prompt, *answer][-2:]
            row = reference_distribution(table[a, b].tolist(), settings, prompt, answer)
            longer |= {(*answer, token): probability * p for token, p in enumerate(row)}
        found = longer
    return found


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
    ("on the host", "coupled", "top-k and top-p", 1),
    ("on the host", "coupled", "unfiltered", 5),
    # test_device.py shows that the others equal the host's, token for token.
    ("in device buffers", "rejection", "top-k and top-p", 2),
]


CASES_OF_SAMPLERS = [
    # Every two of a place, a verification, a gamma, and a kind of filter are in one case together.
    # Here drafts differ from the host's: they are of the two best. Rows of the target overflow.
    ("in device buffers for two ids", "rejection", "top-p", 3),
    ("in device buffers for two ids", "coupled", "top-p", 1),
    ("in device buffers", "rejection", "min-p", 2),
    ("on the host", "coupled", "top-k and top-p", 2),
    ("on the host", "rejection", "top-k and top-p", 5),
    ("on the host", "rejection", "typical-p", 1),
    ("on the host", "rejection", "repetition", 2),
    ("on the host", "coupled", "repetition", 5),
    ("on the host", "rejection", "frequency", 5),
    ("on the host", "rejection", "presence", 1),
    ("on the host", "coupled", "presence", 2),
    ("on the host", "rejection", "bias", 2),
    ("on the host", "coupled", "ban", 5),
    ("on the host", "rejection", "repetition and top-p", 5),
    ("on the host", "rejection", "frequency and typical-p", 2),
    ("on the host", "coupled", "presence and frequency", 2),
    ("on the host", "coupled", "bias and min-p", 1),
    ("in device buffers", "rejection", "typical-p and top-k", 2),
    ("in device buffers", "rejection", "repetition", 5),
    ("in device buffers", "rejection", "presence and frequency", 2),
    ("in device buffers", "coupled", "frequency", 5),
    ("in device buffers", "coupled", "typical-p", 1),
    ("in device buffers", "rejection", "ban", 1),
    ("in device buffers", "coupled", "bias", 2),
    ("in device buffers for two ids", "rejection", "repetition and top-p", 5),
    ("in device buffers for two ids", "coupled", "repetition and top-p", 2),
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


@pytest.mark.parametrize(
    ("where", "verification", "filters", "gamma"), CASES_OF_SAMPLERS, ids=lambda value: str(value)
)
@torch.inference_mode()
def test_with_each_filter_and_with_two_the_first_three_tokens_follow_the_target(
    where, verification, filters, gamma
):
    sampling = _buffers(where)
    settings = Settings(
        max_new_tokens=8, temperature=1.0, gamma=gamma, verification=verification, **FILTERS[filters]
    )
    joint, alpha = _sample(
        settings, lambda settings, noise: sampler_for(settings, noise, sampling), decode=_sampled
    )
    assert 0.3 < alpha < 0.95
    assert _p_value(joint, _enumerated(settings)) > LOWEST_P


@pytest.mark.parametrize(
    ("where", "verification", "filters"),
    [
        # Every two are in one case together.
        ("on the host", "rejection", "unfiltered"),
        ("on the host", "rejection", "top-k and top-p"),
        ("on the host", "coupled", "frequency"),
        ("in device buffers", "coupled", "unfiltered"),
        ("in device buffers", "coupled", "top-k and top-p"),
        ("in device buffers", "rejection", "frequency"),
    ],
)
def test_with_two_drafters_the_first_three_tokens_follow_the_target(where, verification, filters):
    """n-grams draft the rounds whose last two tokens occurred before, the model the others."""
    settings = Settings(
        max_new_tokens=8, temperature=1.0, gamma=2, verification=verification, **FILTERS[filters]
    )
    prompt = [0, 1, 2, 3, 4, 0, 2, 1, *PROMPT, 0, 4, *PROMPT]
    (target, drafter), sampling = _models(), _buffers(where)
    joint, sources = Counter(), Counter()
    for seed in range(ANSWERS):
        context = list(prompt)
        drafters = [NgramDrafter(), ModelDrafter(drafter, drafter.new_cache())]
        sampler = sampler_for(settings, KeyedNoise(seed), sampling)
        rounds = _rounds(context, target, drafters, sampler, settings, _after(context, 3))
        sources.update(rnd.source for rnd in rounds)
        joint[tuple(context[len(prompt) :][:3])] += 1
    assert min(sources["ngram"], sources["model"]) > ANSWERS / 4
    assert _p_value(joint, _enumerated(settings, prompt=prompt)) > LOWEST_P


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
    joint, _ = _sample(
        settings,
        lambda settings, noise: wrong(SamplingParams.from_settings(settings), noise),
        decode=_sampled,
    )
    assert _p_value(joint, _enumerated(settings)) < LOWEST_P


class _KeepsToTheBest(RejectionRule):
    """It ignores rows that overflow."""

    def verdict(self, outcome, gamma: int, alternatives: int = 0) -> Verdict:
        return self._decoded(outcome, gamma).verdict


def test_a_sampler_that_ignores_overflow_fails_the_same_test():
    settings = Settings(max_new_tokens=8, temperature=1.0, gamma=2, **FILTERS["top-p"])
    sampling = _buffers("in device buffers for two ids")
    assert sampling is not None
    plan = FilterPlan(FilterPath.BEST)
    sampling._rules[RejectionRule, plan] = _KeepsToTheBest(sampling, plan)
    joint, _ = _sample(
        settings, lambda settings, noise: sampler_for(settings, noise, sampling), decode=_sampled
    )
    assert _p_value(joint, _enumerated(settings)) < LOWEST_P


FREQUENT = Settings(max_new_tokens=8, temperature=1.0, gamma=5, frequency_penalty=1.5)
"""Of four tokens, the last two are of a round whose drafts before them may be one token twice."""


def _repeating_models() -> tuple[EagerRunner, EagerRunner]:
    """Models of four tokens that like to repeat the last one."""
    generator = torch.Generator().manual_seed(3)
    table = torch.randn((4, 4, 4), generator=generator) + 2 * torch.eye(4)
    noise = 0.5 * torch.randn(table.shape, generator=generator)
    return EagerRunner(TrigramModel(table)), EagerRunner(TrigramModel(table + noise))


def _counts(sampler: RejectionSampler, logits) -> torch.Tensor:
    """Counts of the context alone."""
    RejectionSampler._history(sampler, logits)
    assert sampler._tally is not None
    return sampler._tally.counts


class _OneHistory(RejectionSampler):
    """Each row of a verification has the history of the first."""

    def _history(self, logits) -> History:
        in_all, in_answer = _counts(self, logits)[:, None].expand(-1, len(logits), -1)
        return History(in_all, in_answer)


class _CountsOnce(RejectionSampler):
    """A token that was drafted twice before a row counts once."""

    def _history(self, logits) -> History:
        counts, drafts = _counts(self, logits), torch.tensor(self._drafts, dtype=torch.int64)
        before = drafts_before(len(drafts) + 1, len(drafts))[-len(logits) :]
        history = History.of_rows(counts, drafts, before)
        return History(history.in_all, counts[1] + (history.in_answer - counts[1]).clamp(max=1))


@pytest.mark.parametrize("where", ["on the host", "in device buffers"])
def test_a_token_drafted_twice_within_a_round_is_penalized_twice(where):
    models, sampling = _repeating_models(), None
    if where == "in device buffers":
        sampling = DeviceSampling(torch.device("cpu"), 4)
    joint, _ = _sample(
        FREQUENT,
        lambda settings, noise: sampler_for(settings, noise, sampling),
        tokens=4,
        models=models,
        decode=_sampled,
    )
    twice = sum(count for (_, b, c, _), count in joint.items() if b == c)
    assert twice > ANSWERS / 20
    assert _p_value(joint, _enumerated(FREQUENT, 4, models)) > LOWEST_P


@pytest.mark.parametrize("wrong", [_OneHistory, _CountsOnce])
def test_a_sampler_with_a_wrong_history_fails_the_same_test(wrong):
    models = _repeating_models()
    joint, _ = _sample(
        FREQUENT,
        lambda settings, noise: wrong(SamplingParams.from_settings(settings), noise),
        tokens=4,
        models=models,
        decode=_sampled,
    )
    assert _p_value(joint, _enumerated(FREQUENT, 4, models)) < LOWEST_P


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
        drafters = [ModelDrafter(drafter, drafter.new_cache())]
        sampler = sampler_for(settings, KeyedNoise(seed), sampling, {eos})
        rounds = _rounds(context, target, drafters, sampler, settings, ends)
        assert not any(eos in rnd.verdict.drafts[:-1] for rnd in rounds)
        answers[tuple(context[len(PROMPT) :])] += 1
    assert _p_value(answers, expected) > LOWEST_P
