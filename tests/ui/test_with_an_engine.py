"""The token view's lines over a real engine on a tiny random pair."""

import json
import threading

import specdec_core as sd
from specdec_ui.state.conversation import Conversation


def ask(engine, **settings):
    """The rounds of an answer, and the lines that the token view gets for them."""
    conversation = Conversation()
    chosen = sd.Settings(max_new_tokens=160, temperature=1.0, seed=3, **settings)
    steps = conversation.ask("Once upon a time", engine, chosen, engine.session(), threading.Event())
    rounds = [step for step in steps if isinstance(step, sd.Round)]
    lines = [json.loads(line) for line in conversation.tokens.splitlines()]
    return rounds, [line for line in lines if "tokens" in line]


def test_the_token_view_gets_every_token_of_every_round(engine):
    rounds, lines = ask(engine)
    assert [[t.kind for t in rnd.tokens] for rnd in rounds] == [
        [t[0] for t in line["tokens"]] for line in lines
    ]


def test_a_rejected_draft_is_shown_with_its_own_text(engine):
    rounds, _ = ask(engine)
    pairs = [
        (rejected, correction)
        for rnd in rounds
        for rejected in rnd.tokens
        for correction in rnd.tokens
        if (rejected.kind, correction.kind) == ("rejected", "correction") and rejected.text
    ]
    assert pairs
    assert all(rejected.id != correction.id for rejected, correction in pairs)
    assert sum(rejected.text == correction.text for rejected, correction in pairs) < len(pairs) / 2


def test_baseline_tokens_are_all_plain(engine):
    rounds, _ = ask(engine, gamma=0)
    assert {token.kind for rnd in rounds for token in rnd.tokens} == {"plain"}
