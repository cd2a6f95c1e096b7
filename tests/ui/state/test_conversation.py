"""Conversation: it only grows during an answer, and a failed question leaves it unchanged."""

import json
import threading

import pytest

import specdec_core as sd
from specdec_ui.state.conversation import Conversation
from tests.support.replay import STORY, ReplayEngine

HOSTILE = "<script>alert(1)</script> \ud800 ${x} {{y}} </textarea>"


def ask(conversation, text="Tell me a story.", engine=None, cancel=None, settings=None, **how):
    engine, cancel = engine or ReplayEngine(), cancel or threading.Event()
    return conversation.ask(text, engine, settings or sd.Settings(), None, cancel, **how)


def lines(value):
    return [json.loads(line) for line in value.splitlines()]


def test_what_is_shown_only_grows_while_an_answer_streams():
    conversation = Conversation()
    before = [conversation.transcript]
    for _ in ask(conversation):
        assert conversation.transcript.startswith(before[-1])
        before.append(conversation.transcript)
    assert "".join(line.get("text", "") for line in lines(before[-1])[2:]) == STORY


def test_tokens_only_grow_while_an_answer_streams_and_begin_anew_with_the_next():
    conversation = Conversation()
    before = ""
    for _ in ask(conversation):
        assert conversation.tokens.startswith(before)
        before = conversation.tokens
    kinds = {token[0] for line in lines(before) for token in line.get("tokens", [])}
    assert {"accepted", "rejected", "untested", "correction", "bonus", "plain"} == kinds
    following = ask(conversation)
    next(following)
    assert not conversation.tokens.startswith(before)


def test_turns_are_kept_for_the_next_question():
    conversation, engine = Conversation(), ReplayEngine()
    list(ask(conversation, "One", engine))
    list(ask(conversation, "Two", engine))
    assert [m["content"] for m in engine.prompts[-1]] == ["One", STORY, "Two"]


def test_a_question_that_cannot_be_answered_leaves_the_conversation_as_it_was():
    conversation, engine = Conversation(), ReplayEngine(limit=20)
    list(ask(conversation, "One", engine))
    before = (conversation.transcript, conversation.tokens, list(conversation.messages))
    with pytest.raises(sd.PromptError):
        list(ask(conversation, "x" * 21, engine))
    assert (conversation.transcript, conversation.tokens, conversation.messages) == before


def test_a_stopped_answer_is_kept_as_far_as_it_came():
    conversation, cancel = Conversation(), threading.Event()
    for rnd in ask(conversation, cancel=cancel):
        if isinstance(rnd, sd.Round) and rnd.index == 2:
            cancel.set()
    assert STORY.startswith(conversation.messages[-1]["content"])
    assert "Stopped by you." in lines(conversation.transcript)[-1]["remarks"]


def test_a_closed_page_in_the_middle_leaves_a_whole_turn():
    conversation = Conversation()
    rounds = ask(conversation)
    for _ in range(4):
        next(rounds)
    rounds.close()
    assert [m["role"] for m in conversation.messages] == ["user", "assistant"]


def test_values_are_ascii_without_markup_whatever_was_said():
    conversation = Conversation()
    list(ask(conversation, HOSTILE, ReplayEngine(text=HOSTILE)))
    for value in (conversation.transcript, conversation.tokens):
        assert value.isascii()
        assert "<" not in value
    assert lines(conversation.transcript)[0]["text"] == HOSTILE


def test_undo_goes_back_to_what_was_before_the_last_question():
    conversation = Conversation()
    list(ask(conversation, "One"))
    before = (conversation.transcript, conversation.tokens, list(conversation.messages))
    list(ask(conversation, "Two"))
    conversation.undo()
    assert (conversation.transcript, conversation.tokens, conversation.messages) == before
    conversation.undo()
    conversation.undo()
    assert (conversation.transcript, conversation.tokens, conversation.messages) == ("", "", [])


def test_undo_takes_back_an_answer_without_text_too():
    conversation = Conversation()
    list(ask(conversation, "One"))
    before = (conversation.transcript, list(conversation.messages))
    list(ask(conversation, "Two", ReplayEngine(text="")))
    conversation.undo()
    assert (conversation.transcript, conversation.messages) == before


def test_a_question_asked_again_takes_the_place_of_the_last_one():
    conversation, engine = Conversation(), ReplayEngine()
    for text in ("One", "Two"):
        list(ask(conversation, text, engine))
    list(ask(conversation, "Three", engine, again=True))
    assert [m["content"] for m in engine.prompts[-1]] == ["One", STORY, "Three"]
    assert [line["text"] for line in lines(conversation.transcript) if line["event"] == "user"] == [
        "One",
        "Three",
    ]
    assert conversation.question == "Three"


def test_a_question_that_cannot_be_asked_again_leaves_the_turn_that_it_was_to_replace():
    conversation, engine = Conversation(), ReplayEngine(limit=20)
    list(ask(conversation, "One", engine))
    before = (conversation.transcript, conversation.tokens, list(conversation.messages))
    with pytest.raises(sd.PromptError):
        list(ask(conversation, "x" * 21, engine, again=True))
    assert (conversation.transcript, conversation.tokens, conversation.messages) == before
    assert conversation.question == "One"


def test_a_system_message_stands_first_and_is_no_turn():
    conversation, engine = Conversation(), ReplayEngine()
    list(ask(conversation, "One", engine, system="Rhyme."))
    list(ask(conversation, "Two", engine))
    assert [m["role"] for m in engine.prompts[0]] == ["system", "user"]
    assert [m["role"] for m in engine.prompts[1]] == ["user", "assistant", "user"]
    assert "Rhyme." not in conversation.transcript
