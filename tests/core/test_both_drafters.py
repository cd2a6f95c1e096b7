"""drafting="both": n-grams in rounds whose context repeats itself, the model in all others."""

from dataclasses import replace

import pytest

import specdec_core as sd
from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import ModelDrafter, NgramDrafter
from specdec_core.drafting.length import FixedGamma, StepCosts
from specdec_core.runners import runner_for
from specdec_core.sampling import sampler_for
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.session import Session
from specdec_core.trace import emitted_ids
from tests.support.tiny_models import noisy_copy, tiny_model

FEW = dict.fromkeys(range(40, 52), 50.0)
"""Biases towards twelve tokens, pairs of which repeat in some rounds of an answer and not in others."""
LIST = "one cat, two cats, three cats, one cat, two cats, "
FILTERS = [{}, {"top_p": 0.8}, {"repetition_penalty": 1.2}, {"frequency_penalty": 0.5, "top_k": 20}]


def _settings(**changed) -> sd.Settings:
    values = {"max_new_tokens": 80, "gamma": 4, "drafting": "both", "temperature": 1.0, "seed": 3, **changed}
    return sd.Settings(**{"logit_bias": FEW, **values})


def _sources(rounds) -> set:
    return {rnd.source for rnd in rounds if rnd.drafted}


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("rule", [{"temperature": 0.0}, {"verification": "coupled"}], ids=str)
def test_the_answer_is_the_baseline_s(engine, rule, filters):
    sources = set()
    for prompt in (LIST, "He said: don't go", "Once upon a time"):
        settings = _settings(**rule, **filters)
        result = engine.generate(prompt, settings)
        assert result.token_ids == engine.generate(prompt, replace(settings, gamma=0)).token_ids
        sources |= _sources(result.rounds)
    assert sources == {"model", "ngram"}


@pytest.mark.parametrize("verification", ["rejection", "coupled"])
def test_gamma_auto_drafts_by_both(engine, verification):
    costs = {"ngram": StepCosts(0.0, {1: 1.0, 9: 1.1}), "model": StepCosts(0.01, {1: 1.0, 9: 1.1})}
    session = Session(replace(engine.pair, costs=costs))
    rounds = list(session.rounds(LIST, _settings(gamma="auto", verification=verification), lambda: False))
    assert _sources(rounds) <= {"model", "ngram"}
    assert len(emitted_ids(rounds)) == rounds[-1].stats.new_tokens > 0


def test_n_grams_draft_exactly_the_rounds_whose_context_repeats_itself(engine):
    result = engine.generate(LIST, _settings())
    ids = [*result.prompt_token_ids, *result.token_ids]
    for rnd in result.rounds[1:]:
        context = ids[: len(result.prompt_token_ids) + rnd.position]
        matches = NgramDrafter().offer(context) is not None
        assert not rnd.drafted or rnd.source == ("ngram" if matches else "model")
    assert _sources(result.rounds) == {"model", "ngram"}


def test_q_is_one_hot_for_n_grams_and_the_drafter_s_for_the_model(engine):
    result = engine.generate(LIST, _settings())
    q = {source: [] for source in _sources(result.rounds)}
    for rnd in result.rounds:
        if rnd.source is not None:
            q[rnd.source] += [token.drafter_prob for token in rnd.drafted]
    assert set(q["ngram"]) == {1.0}
    assert all(0 < prob < 1 for prob in q["model"])


class _Lengths:
    """Both drafters over caches that a test can look into."""

    def __init__(self) -> None:
        model = tiny_model("llama")
        self.target, self.runner = runner_for(model), runner_for(noisy_copy(model, 0.05))
        self.cache = self.target.new_cache()
        self.model = ModelDrafter(self.runner, self.runner.new_cache())

    def rounds(self, context: list[int], gamma: int = 3, cancelled=lambda: False):
        settings = sd.Settings(max_new_tokens=60, temperature=0)
        return Decoding(
            context,
            self.target,
            self.cache,
            [NgramDrafter(), self.model],
            sampler_for(settings, KeyedNoise(1)),
            FixedGamma(gamma),
            lambda ids: (len(ids), None),
            Limits(60, 256),
        ).rounds(cancelled)


PROMPT = [5, 9, 14, 9, 14, 31, 7, 5, 9]


def test_the_model_falls_behind_in_rounds_of_n_grams_and_catches_up_in_its_next():
    lanes, context, behind = _Lengths(), list(PROMPT), 0
    before = 0
    for rnd in lanes.rounds(context):
        cached = lanes.model.cache.length
        assert lanes.cache.length == len(context) - 1
        if rnd.source == "ngram":
            assert cached == before
            behind = len(context) - cached
        elif rnd.source == "model":
            assert cached >= len(context) - 2
        before = cached
    assert behind > 2


def test_after_catching_up_the_model_drafts_what_it_would_have_drafted_all_along():
    lanes, context = _Lengths(), list(PROMPT)
    compared = 0
    for rnd in lanes.rounds(context):
        if rnd.source != "model" or not rnd.verdict.drafts:
            continue
        start = len(context) - rnd.kept
        fresh = ModelDrafter(lanes.runner, lanes.runner.new_cache())
        sampler = sampler_for(sd.Settings(temperature=0), KeyedNoise(1))
        sampler.start_round(context[:start], len(rnd.verdict.drafts))
        assert fresh.catch_up(context[:start], lambda: False)
        fresh.propose(context[:start], len(rnd.verdict.drafts), sampler)
        assert sampler.rows.tolist()[1:] == rnd.verdict.drafts
        compared += 1
    assert compared > 0


def test_cancelled_while_the_model_catches_up_the_caches_hold_nothing_past_the_context():
    lanes, context = _Lengths(), list(PROMPT)
    behind = False

    def cancelled() -> bool:
        return behind

    for rnd in lanes.rounds(context, cancelled=cancelled):
        behind = rnd.source == "ngram"
    assert rnd.finish_reason == "cancelled"
    assert lanes.cache.length == len(context) - 1
    assert lanes.model.cache.length < len(context)


def test_a_follow_up_continues_both_caches(engine):
    session, messages = engine.session(), [{"role": "user", "content": LIST}]
    for text in ("again", "and again"):
        first = engine.generate(messages, _settings(temperature=0), session)
        messages = [
            *messages,
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": text},
        ]
        sampled = {text: list(ids) for text, ids in session.sampled.items()}
        result = engine.generate(messages, _settings(temperature=0), session)
        baseline = engine.generate(messages, _settings(temperature=0, gamma=0), engine.session(sampled))
        assert result.token_ids == baseline.token_ids
        assert result.stats.cached_prompt_tokens > 0


def test_a_trace_says_who_drafted(engine):
    rounds = engine.generate(LIST, _settings()).rounds
    assert [sd.Round.from_dict(rnd.to_dict()).source for rnd in rounds] == [rnd.source for rnd in rounds]
    assert {rnd.source for rnd in rounds if not rnd.drafted} == {None}


def test_a_target_alone_is_refused_as_for_the_model(pair_folders):
    alone = sd.Engine.load(target=pair_folders[0], device="cpu")
    with pytest.raises(sd.SettingsError, match="No drafter"):
        alone.generate(LIST, _settings())
