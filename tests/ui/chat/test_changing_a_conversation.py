"""Retry, edit, undo and the system message, without a browser."""

import pytest

import specdec_core as sd
from specdec_ui.chat import handlers as chat_handlers
from specdec_ui.parts.settings_panel import panel_values
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.visitors import Visitor
from tests.support.families import FAMILIES, save_family
from tests.support.replay import STORY, ReplayEngine, ReplayInfo, ReplayPreset

VALUES = tuple(panel_values(sd.Settings(max_new_tokens=8, seed=1)))


def holder_of(*engines):
    """Its first pair is loaded; `load` takes the next."""
    left = list(engines)
    holder = EngineHolder(lambda preset, on_progress: (left.pop(0), None))
    load(holder)
    return holder


def load(holder):
    holder.load(ReplayPreset("replay"), lambda message, fraction: None)


def send(visitor, holder, text, system=""):
    return list(chat_handlers.send(visitor, holder, text, VALUES, system, frame_s=0))


def roles(asked):
    return [(message["role"], message["content"]) for message in asked]


def test_retry_asks_the_last_question_again_and_leaves_the_message_box_alone():
    visitor, engine = Visitor(), ReplayEngine()
    holder = holder_of(engine)
    send(visitor, holder, "One")
    send(visitor, holder, "Two")
    frames = list(chat_handlers.retry(visitor, holder, VALUES, frame_s=0))
    assert roles(engine.asked[-1]) == roles(engine.asked[-2])
    assert {frame.message for frame in frames} == {None}
    assert (frames[0].answering, frames[-1].answering, frames[-1].notice) == (True, False, "")
    assert [m["content"] for m in visitor.conversation.messages] == ["One", STORY, "Two", STORY]


def test_edit_asks_another_text_in_place_of_the_last():
    visitor, engine = Visitor(), ReplayEngine()
    holder = holder_of(engine)
    send(visitor, holder, "One")
    send(visitor, holder, "Two")
    list(chat_handlers.edit(visitor, holder, "Three", VALUES))
    assert roles(engine.asked[-1]) == [("user", "One"), ("assistant", STORY), ("user", "Three")]


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("a\x07b", "U+0007"), ("x" * 60, "Shorten"), (None, "text")]
)
def test_an_edit_that_cannot_be_answered_says_why_and_changes_nothing(text, said):
    visitor, holder = Visitor(), holder_of(ReplayEngine(limit=50))
    send(visitor, holder, "One")
    before = visitor.conversation.shown
    frames = list(chat_handlers.edit(visitor, holder, text, VALUES))
    assert said in frames[-1].notice
    assert {frame.message for frame in frames} == {None}
    assert visitor.conversation.shown == before


def test_nothing_asked_yet_cannot_be_asked_again():
    visitor, holder = Visitor(), holder_of(ReplayEngine())
    frames = list(chat_handlers.retry(visitor, holder, VALUES))
    assert [frame.notice for frame in frames] == ["Nothing has been asked yet. Send a message first."]


def test_nothing_is_changed_while_an_answer_is_on_its_way():
    visitor, holder = Visitor(), holder_of(ReplayEngine())
    answer = chat_handlers.send(visitor, holder, "One", VALUES, frame_s=0)
    for _ in range(3):
        next(answer)
    assert "still on its way" in chat_handlers.undo(visitor).notice
    assert "still on its way" in next(chat_handlers.retry(visitor, holder, VALUES)).notice
    assert list(answer)[-1].notice == ""
    assert chat_handlers.undo(visitor).shown == ""


def test_a_system_message_goes_only_to_a_pair_that_takes_one_and_outlives_clear():
    takes, takes_none = ReplayEngine(info=ReplayInfo(takes_system_message=True)), ReplayEngine()
    visitor, holder = Visitor(), holder_of(takes, takes_none)
    send(visitor, holder, "One", "Rhyme.")
    chat_handlers.clear(visitor)
    send(visitor, holder, "Two", "Rhyme.")
    assert [roles(asked) for asked in takes.asked] == [
        [("system", "Rhyme."), ("user", "One")],
        [("system", "Rhyme."), ("user", "Two")],
    ]
    load(holder)
    send(visitor, holder, "Three", "Rhyme.")
    assert "system" not in dict(roles(takes_none.asked[-1]))


@pytest.mark.parametrize("blank", ["", " \n "])
def test_a_blank_system_message_is_none(blank):
    engine = ReplayEngine(info=ReplayInfo(takes_system_message=True))
    send(Visitor(), holder_of(engine), "One", blank)
    assert roles(engine.asked[0]) == [("user", "One")]


def test_a_system_message_is_checked_as_a_message_is():
    frames = send(Visitor(), holder_of(ReplayEngine()), "One", "a\ud800b")
    assert "The system message holds half of a character (U+D800" in frames[0].notice


def test_with_a_real_pair_the_system_message_is_in_the_prompt_and_turns_can_be_taken_back(tmp_path):
    target, drafter = save_family(tmp_path, FAMILIES["llama"])
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    visitor, holder = Visitor(), holder_of(engine)
    send(visitor, holder, "Who are you?", "Be a dog.")
    session = visitor._session
    said = engine.pair.tokenizer.decode(session.prompt_ids)
    assert "Be a dog." in said
    send(visitor, holder, "Where?", "Be a dog.")
    asked = list(session.prompt_ids)
    list(chat_handlers.retry(visitor, holder, VALUES, "Be a dog."))
    assert session.prompt_ids == asked
    chat_handlers.undo(visitor)
    list(chat_handlers.edit(visitor, holder, "Why?", VALUES))
    assert "Be a dog." not in engine.pair.tokenizer.decode(session.prompt_ids)
    assert len(visitor.conversation.messages) == 2
    engine.unload()
