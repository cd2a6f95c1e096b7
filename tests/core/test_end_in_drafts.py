"""An answer that ends inside its drafts: nothing after the end is drafted, tested or counted."""

from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
import torch

import specdec_core as sd
from specdec_core.decoding import DecodedRound, Decoding, Limits
from specdec_core.drafting import SOURCES, ModelDrafter, NgramDrafter
from specdec_core.drafting.length import AdaptiveGamma, GammaChoice, StepCosts
from specdec_core.runners import EagerRunner
from specdec_core.sampling import DeviceSampling, Verdict, sampler_for
from specdec_core.sampling.base import count_to_end
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.settings import Settings
from tests.support.tiny_models import TrigramModel

VOCAB = 6
EOS = 4
PROMPT = [1, 3, EOS, 0, 2, EOS, 5, 1, EOS, 2, 3, EOS, 0, 5, EOS, 3, 2, 1, 0, EOS, 1, 3]
"""With ends of earlier turns, as a chat template writes them, for n-gram drafts to repeat."""
GAMMA = 5
RULES = {
    "greedy": {"temperature": 0},
    "rejection": {"temperature": 1.0},
    "coupled": {"temperature": 1.0, "verification": "coupled"},
}


@dataclass
class Recorded:
    """A fixed gamma that keeps what it is told of every round."""

    gamma: int
    seen: list[tuple[int, int, int]] = field(default_factory=list)

    def choose(self, offers) -> GammaChoice:
        return GammaChoice(self.gamma, "fixed", offer=offers[0] if offers else None)

    def observe(self, drafted, accepted, draft_s, verify_s, computed=None) -> None:
        self.seen.append((drafted, accepted, drafted if computed is None else computed))


class Counted(EagerRunner):
    """A runner that counts the rows that it was fed."""

    rows = 0

    def forward(self, cache, ids, **options):
        self.rows += ids.shape[0]
        return super().forward(cache, ids, **options)


@dataclass
class Answer:
    ids: list[int]
    rounds: list[DecodedRound]
    policy: Recorded
    drafter: Counted

    @property
    def last(self) -> Verdict:
        verdict = self.rounds[-1].verdict
        assert verdict is not None
        return verdict


def _runners(seed: int) -> tuple[EagerRunner, Counted]:
    generator = torch.Generator().manual_seed(seed)
    table = 2 * torch.randn((VOCAB, VOCAB, VOCAB), generator=generator)
    noise = torch.randn(table.shape, generator=generator)
    return EagerRunner(TrigramModel(table)), Counted(TrigramModel(table + noise))


def _answer(seed: int, rule: str, where: str, drafting: str, gamma: int = GAMMA) -> Answer:
    target, runner = _runners(seed)
    settings = Settings(max_new_tokens=40, seed=seed, **RULES[rule])
    sampling = DeviceSampling(torch.device("cpu"), VOCAB) if where == "device" else None
    drafters = {"model": ModelDrafter(runner, runner.new_cache()), "ngram": NgramDrafter()}
    context, policy = list(PROMPT), Recorded(gamma)

    def ends(ids):
        count = count_to_end(ids, {EOS})
        return count, "eos" if ids[count - 1] == EOS else None

    rounds = list(
        Decoding(
            context,
            target,
            target.new_cache(),
            [drafters[source] for source in SOURCES[drafting]],
            sampler_for(settings, KeyedNoise(seed), sampling, {EOS}),
            policy,
            ends,
            Limits(40, 512),
        ).rounds(lambda: False)
    )
    return Answer(context[len(PROMPT) :], rounds, policy, runner)


WAYS = list(product(RULES, ["host", "device"], SOURCES))


@pytest.mark.parametrize(("rule", "where", "drafting"), WAYS)
def test_no_draft_follows_one_that_would_end_the_answer(rule, where, drafting):
    places = Counter()
    for seed in range(40):
        for rnd in _answer(seed, rule, where, drafting).rounds[1:]:
            verdict = rnd.verdict
            assert EOS not in verdict.drafts[:-1]
            assert len(verdict.drafts) == len(verdict.target_probs) == len(verdict.drafter_probs)
            if verdict.drafts[-1:] == [EOS]:
                places[verdict.accepted - len(verdict.drafts) + 1] += 1
    assert places[1] > 0, "an EOS is accepted"
    assert places[0] > 0, "one is rejected"
    assert "model" not in SOURCES[drafting] or min(places) < 0, "one comes after a rejected draft"


@pytest.mark.parametrize(("rule", "where", "drafting"), WAYS)
def test_an_accepted_end_is_the_last_token_and_nothing_follows_it(rule, where, drafting):
    ended_by_a_draft = 0
    for seed in range(40):
        answer = _answer(seed, rule, where, drafting)
        assert EOS not in answer.ids[:-1]
        if answer.ids[-1] != EOS or answer.last.drafts[-1:] != [EOS]:
            continue
        if answer.rounds[-1].kept > answer.last.accepted:
            continue  # the target's own
        ended_by_a_draft += 1
        assert answer.rounds[-1].kept == answer.last.accepted == len(answer.last.drafts)
    assert ended_by_a_draft > 0


@pytest.mark.parametrize(("rule", "where", "drafting"), WAYS)
def test_the_policy_learns_from_the_drafts_that_count(rule, where, drafting):
    computed_more = 0
    for seed in range(40):
        answer = _answer(seed, rule, where, drafting)
        verdicts = [rnd.verdict for rnd in answer.rounds[1:]]
        assert [seen[:2] for seen in answer.policy.seen] == [(len(v.drafts), v.accepted) for v in verdicts]
        computed_more += sum(computed > drafted for drafted, _, computed in answer.policy.seen)
    # Only drafts on a device are computed before it is known that one ends the answer.
    assert (computed_more > 0) == (where == "device" and "model" in SOURCES[drafting])


@pytest.mark.parametrize("rule", ["greedy", "coupled"])
@pytest.mark.parametrize(("where", "drafting"), product(["host", "device"], SOURCES))
def test_the_answer_is_the_baseline_s(rule, where, drafting):
    for seed in range(20):
        baseline = _answer(seed, rule, "host", drafting, gamma=0)
        assert _answer(seed, rule, where, drafting).ids == baseline.ids


@pytest.mark.parametrize("rule", RULES)
def test_on_the_host_the_drafter_stops_at_an_end(rule):
    """It is fed what it lacks of the context and all drafts but the last of each round."""
    for seed in range(20):
        answer = _answer(seed, rule, "host", "model")
        fed, length, cached = 0, len(PROMPT) + 1, 0
        for rnd in answer.rounds[1:]:
            drafts = len(rnd.verdict.drafts)
            if drafts:
                fed += length - cached + drafts - 1
                cached = min(length + drafts - 1, length + rnd.kept - 1)
            length += rnd.kept
        assert answer.drafter.rows == fed


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("rule", RULES)
def test_drafts_on_a_device_are_cut_to_those_of_the_host(rule, where):
    for seed in range(20):
        got, wanted = _answer(seed, rule, where, "model"), _answer(seed, rule, "host", "model")
        assert [(rnd.verdict.drafts, rnd.verdict.accepted) for rnd in got.rounds] == [
            (rnd.verdict.drafts, rnd.verdict.accepted) for rnd in wanted.rounds
        ]


def test_cutting_keeps_the_first_drafts_and_what_was_accepted_of_them():
    verdict = Verdict([7, 8, 9], 3, 5, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], 0.9, None)
    cut = verdict.cut_to(2)
    assert (cut.drafts, cut.accepted) == ([7, 8], 2)
    assert (cut.target_probs, cut.drafter_probs) == ([0.1, 0.2], [0.4, 0.5])
    rejected = replace(verdict, accepted=1).cut_to(2)
    assert (rejected.drafts, rejected.accepted, rejected.token) == ([7, 8], 1, 5)


def test_costs_are_learned_from_the_drafts_that_were_computed():
    costs, cut = (StepCosts(0.2, {1: 1.0, 9: 1.4}) for _ in range(2))
    AdaptiveGamma(costs).observe(4, 4, 4 * 0.3, 1.2)
    AdaptiveGamma(cut).observe(2, 2, 4 * 0.3, 1.2, computed=4)
    assert (cut.drafter, cut.verify) == (costs.drafter, costs.verify)


# Through an engine, whose trace and figures people see


def _engine(engine: sd.Engine, where: str, eos_ids: frozenset[int] = frozenset()) -> sd.Engine:
    """An engine whose target drafts for itself, so that every draft is accepted."""
    pair = replace(engine.pair, drafter=engine.pair.target, eos_ids=eos_ids)
    if where == "device":
        # In the place where the pair of a GPU keeps it.
        pair.__dict__["sampling"] = DeviceSampling(torch.device("cpu"), pair.target.vocab_size)
    return sd.Engine(pair, engine.info)


def _settings(**changed) -> Settings:
    return Settings(**{"temperature": 1.5, "seed": 3, "max_new_tokens": 60, "gamma": 5, **changed})


def _inside(result: sd.Result) -> tuple[sd.Round, int]:
    """A later round, and the place among its first drafts of a token that the answer did not have before."""
    for rnd in result.rounds[3:]:
        for at, token in enumerate(rnd.drafted[:-2]):
            if token.id not in result.token_ids[: rnd.position + at] and token.text.strip():
                return rnd, at
    pytest.fail("every draft in the middle of a round was there before")


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("rule", [{"temperature": 0.0}, {}, {"verification": "coupled"}], ids=str)
def test_trace_and_figures_have_nothing_after_the_end(engine, where, rule):
    prompt = "He said: don't go, over the sea"
    whole = _engine(engine, where).generate(prompt, _settings(**rule))
    rnd, at = _inside(whole)
    eos = rnd.drafted[at].id
    result = _engine(engine, where, frozenset({eos})).generate(prompt, _settings(**rule))
    assert result.finish_reason == "eos"
    assert result.token_ids == whole.token_ids[: rnd.position + at + 1]
    last = result.rounds[-1]
    assert [token.kind for token in last.tokens] == ["accepted"] * (at + 1)
    assert last.tokens[-1].id == eos
    tokens = [token for rnd in result.rounds for token in rnd.tokens]
    assert result.stats.drafted == sum(token.kind in sd.DRAFTED_KINDS for token in tokens)
    assert result.stats.tested == sum(token.kind in sd.TESTED_KINDS for token in tokens)
    assert result.stats.accepted == sum(token.kind == "accepted" for token in tokens)
    assert result.stats.new_tokens == len(result.token_ids)


def test_drafts_after_a_stop_text_count_nowhere(engine):
    speculative = _engine(engine, "host")
    whole = speculative.generate("Once upon a time", _settings())
    rnd, at = _inside(whole)
    stop = rnd.drafted[at].text
    result = speculative.generate("Once upon a time", _settings(stop=[stop]))
    last = result.rounds[-1]
    assert result.finish_reason == "stop"
    assert {token.kind for token in last.tokens} == {"accepted"}
    assert len(last.drafted) < 5
    assert result.stats.drafted == sum(len(rnd.drafted) for rnd in result.rounds)
