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
