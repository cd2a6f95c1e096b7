"""transformers' own generate as a stream: the same text at temperature 0, cancelling, what it cannot do."""

import threading
from dataclasses import replace

import pytest

import specdec_core as sd

GREEDY = sd.Settings(temperature=0.0, max_new_tokens=24, seed=1)
PROMPT = "Once upon a time"


def text_of(rounds):
    return "".join(rnd.text for rnd in rounds)


@pytest.mark.parametrize("peer", ["generate", "assisted"])
def test_at_temperature_0_it_answers_as_plain_decoding_does(engine, peer):
    plain = engine.generate(PROMPT, replace(GREEDY, gamma=0))
    rounds = list(engine.peer_stream(PROMPT, GREEDY, peer=peer))
    assert text_of(rounds) == plain.text
    assert rounds[-1].stats.new_tokens == len(plain.token_ids)
    assert rounds[-1].stats.tokens_per_second > 0
    assert rounds[-1].finish_reason == plain.finish_reason


def test_what_it_drafted_is_not_invented(engine):
    rounds = list(engine.peer_stream(PROMPT, GREEDY, peer="assisted"))
    assert {token.kind for rnd in rounds for token in rnd.tokens} == {"plain"}
    assert rounds[-1].stats.acceptance_rate is None


def test_a_stop_string_ends_it(engine):
    whole = text_of(engine.peer_stream(PROMPT, GREEDY, peer="generate"))
    stop = whole[8:12]
    rounds = list(engine.peer_stream(PROMPT, replace(GREEDY, stop=(stop,)), peer="generate"))
    assert text_of(rounds) == whole[: whole.index(stop)]
    assert rounds[-1].finish_reason == "stop"


def test_it_can_be_cancelled_and_closed_and_lets_go_of_the_pair(engine):
    long = replace(GREEDY, max_new_tokens=2000)
    cancel = threading.Event()
    cancel.set()
    assert list(engine.peer_stream(PROMPT, long, peer="assisted", cancel=cancel))[-1].finish_reason in (
        "cancelled",
        "eos",
    )
    rounds = engine.peer_stream(PROMPT, long, peer="generate")
    next(rounds)
    rounds.close()
    assert engine.generate(PROMPT, replace(GREEDY, gamma=2)).finish_reason
    assert engine.admission.active == 0


def test_a_prompt_longer_than_the_context_is_explained(engine):
    with pytest.raises(sd.PromptError, match="context holds"):
        list(engine.peer_stream("Once upon a time " * 2000, GREEDY, peer="generate"))


FILTERS = {
    "repetition_penalty": {"repetition_penalty": 1.3},
    "frequency_penalty": {"frequency_penalty": 0.7},
    "presence_penalty": {"presence_penalty": 1.2},
    "logit_bias": {"logit_bias": {11: 4.0, 12: -3.0}},
    "banned_tokens": {"banned_tokens": [13, 14, 15]},
    "all": {
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.4,
        "presence_penalty": -0.2,
        "logit_bias": {11: 2.0},
        "banned_tokens": [13],
    },
}


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("peer", ["generate", "assisted"])
def test_with_a_filter_on_logits_greedy_texts_are_the_same(engine, peer, filters):
    settings = replace(GREEDY, **FILTERS[filters])
    peers = text_of(engine.peer_stream(PROMPT, settings, peer=peer))
    plain = engine.generate(PROMPT, replace(settings, gamma=0))
    assert peers == plain.text
    assert engine.generate(PROMPT, replace(settings, gamma=3)).token_ids == plain.token_ids
    assert engine.generate(PROMPT, replace(settings, gamma=3, drafting="ngram")).token_ids == plain.token_ids


def test_the_models_own_generation_defaults_do_not_change_its_answer(engine):
    plain = engine.generate(PROMPT, replace(GREEDY, gamma=0)).text
    config = engine.pair.target.model.generation_config
    config.no_repeat_ngram_size, config.repetition_penalty = 1, 5.0
    try:
        assert text_of(engine.peer_stream(PROMPT, GREEDY, peer="generate")) == plain
    finally:
        config.no_repeat_ngram_size, config.repetition_penalty = None, None
    assert engine.pair.target.model.generation_config is config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"logit_bias": {10**6: 1.0}}, "logit_bias has token 1000000; this pair's ids end at"),
        ({"banned_tokens": [10**6]}, "banned_tokens has token 1000000; this pair's ids end at"),
    ],
)
def test_ids_beyond_the_vocabulary_are_refused_by_every_lane(engine, settings, message):
    settings = replace(GREEDY, **settings)
    with pytest.raises(sd.SettingsError, match=message):
        list(engine.peer_stream(PROMPT, settings, peer="generate"))
    with pytest.raises(sd.SettingsError, match=message):
        engine.generate(PROMPT, settings)
    with pytest.raises(sd.SettingsError, match=message):
        engine.margin(PROMPT, [], settings)


def test_a_ban_of_every_token_is_refused(engine):
    everything = list(range(engine.pair.target.vocab_size))
    with pytest.raises(sd.SettingsError, match="every token"):
        engine.generate(PROMPT, replace(GREEDY, banned_tokens=everything))
    only = engine.generate(PROMPT, replace(GREEDY, max_new_tokens=4, banned_tokens=everything[1:]))
    assert set(only.token_ids) == {0}
