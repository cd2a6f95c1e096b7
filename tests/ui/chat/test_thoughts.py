"""Thoughts on the page: folded away above the answer, and in none of the messages."""

import threading
from dataclasses import replace

import pytest

import specdec_core as sd
from specdec_ui.api.endpoints import chat_rounds
from specdec_ui.loading import handlers as load_handlers
from specdec_ui.page import _settings
from specdec_ui.parts.assets import json_line
from specdec_ui.parts.figures import in_words
from specdec_ui.parts.settings_panel import CHAT_PANEL
from specdec_ui.state.conversation import Conversation
from specdec_ui.state.visitors import Visitor
from tests.support.conversation_page import QUESTION, conversation_in
from tests.support.replay import ReplayEngine, loaded_holder, rounds_of

THOUGHT = "Hm, <b>so</b> ${alert(1)}\nit is."
ANSWER = "Yes it is."


def _engine(**info) -> ReplayEngine:
    engine = ReplayEngine()
    first, *rest = rounds_of(ANSWER, 2)
    thinking = replace(first, text="", thought=THOUGHT[:9])
    engine.given = [thinking, replace(thinking, thought=THOUGHT[9:]), first, *rest]
    engine.info = replace(engine.info, **info)
    return engine


def test_a_thought_is_in_the_transcript_and_in_no_message():
    conversation, engine = Conversation(), _engine()
    list(conversation.ask("So?", engine, sd.Settings(), None, threading.Event()))
    assert conversation.messages == [
        {"role": "user", "content": "So?"},
        {"role": "assistant", "content": ANSWER},
    ]
    assert json_line(event="thought", text=THOUGHT[:9]) in conversation.transcript
    list(conversation.ask("Sure?", engine, sd.Settings(), None, threading.Event()))
    assert all(THOUGHT not in message["content"] for message in engine.prompts[-1])


def test_a_question_whose_answer_was_only_a_thought_is_no_message_and_the_page_says_so():
    conversation, engine = Conversation(), _engine()
    engine.given = engine.given[:2]
    list(conversation.ask("So?", engine, sd.Settings(), None, threading.Event()))
    assert conversation.messages == []
    assert "the question above is no part of the conversation" in conversation.transcript


def test_a_client_gets_it_beside_the_text():
    last = list(chat_rounds(Visitor(), loaded_holder(_engine()), "So?", {}, False))[-1]
    assert (last["thought"], last["text"]) == (THOUGHT, ANSWER)


@pytest.mark.parametrize(("gamma", "tokens"), [(0, 7), (4, 1)])
def test_its_tokens_are_counted_in_words(gamma, tokens):
    rounds = rounds_of(ANSWER, gamma)
    stats = sd.summarize(rounds, time_to_first_token_s=0.1, prompt_tokens=3, thought_tokens=tokens)
    words = in_words(stats)
    assert f"The thought took {sd.counted(tokens, 'token')}, the answer {stats.new_tokens - tokens}." in words
    assert "thought" not in in_words(replace(stats, thought_tokens=0))


@pytest.mark.parametrize("can_switch", [True, False])
def test_the_switch_is_shown_where_the_template_has_one(can_switch):
    holder = loaded_holder(_engine(can_switch_thinking=can_switch))
    frame = load_handlers.ready(holder.require())
    settings = dict(zip(CHAT_PANEL.fields, _settings(frame), strict=True))
    assert settings["thinking"]["visible"] is can_switch
    assert settings["thinking"]["value"] == "auto"
    assert settings["temperature"] == sd.Settings().temperature


@pytest.mark.browser
@pytest.mark.slow
def test_it_is_folded_away_above_the_answer_and_is_only_ever_text(browser):
    with conversation_in(browser) as page:
        shown = QUESTION + json_line(event="thought", text=THOUGHT[:9])
        page.evaluate("value => window.show(value)", shown)
        thought = page.locator(".turn-answer .turn-thought")
        assert thought.locator("summary").inner_text() == "Thinking…"
        assert not thought.locator(".turn-thought-text").is_visible()
        shown += json_line(event="thought", text=THOUGHT[9:]) + json_line(event="text", text=ANSWER)
        page.evaluate("value => window.show(value)", shown)
        page.evaluate("value => window.show(value)", shown + json_line(event="end", remarks=[]))
        assert thought.locator("summary").inner_text() == "Thought"
        assert thought.locator(".turn-thought-text").evaluate("node => node.textContent") == THOUGHT
        assert thought.locator(".turn-thought-text *").count() == 0
        thought.locator("summary").click()
        assert thought.locator(".turn-thought-text").is_visible()
        assert page.locator(".turn-answer .turn-text").inner_text().strip() == ANSWER
