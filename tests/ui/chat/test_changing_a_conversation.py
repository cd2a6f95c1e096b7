"""Retry, edit, undo and the system message, without a browser."""

import pytest

import specdec_core as sd
from specdec_ui.chat import handlers as chat_handlers
from specdec_ui.chat.handlers import Question
from specdec_ui.parts.settings_panel import CHAT_PANEL
from specdec_ui.state.visitors import Visitor
from tests.support.families import FAMILIES, save_family
from tests.support.replay import STORY, ReplayEngine, loaded_holder, no_progress, replay_info, replay_preset

VALUES = tuple(CHAT_PANEL.values(sd.Settings(max_new_tokens=8, seed=1)))


def ask(visitor, holder, text="", system="", action="send"):
    return list(chat_handlers.ask(visitor, holder, Question(text, VALUES, system, action), frame_s=0))


def roles(prompt):
    return [(message["role"], message["content"]) for message in prompt]


def test_retry_asks_the_last_question_again_and_leaves_the_message_box_alone():
    visitor, engine = Visitor(), ReplayEngine()
    holder = loaded_holder(engine)
    ask(visitor, holder, "One")
    ask(visitor, holder, "Two")
    frames = ask(visitor, holder, action="retry")
    assert roles(engine.prompts[-1]) == roles(engine.prompts[-2])
    assert {frame.message for frame in frames} == {None}
    assert (frames[0].answering, frames[-1].answering, frames[-1].notice) == (True, False, "")
    assert [m["content"] for m in visitor.conversation.messages] == ["One", STORY, "Two", STORY]


def test_edit_asks_another_text_in_place_of_the_last():
    visitor, engine = Visitor(), ReplayEngine()
    holder = loaded_holder(engine)
    ask(visitor, holder, "One")
    ask(visitor, holder, "Two")
    ask(visitor, holder, "Three", action="edit")
    assert roles(engine.prompts[-1]) == [("user", "One"), ("assistant", STORY), ("user", "Three")]


@pytest.mark.parametrize(
    ("text", "said"), [("", "empty"), ("a\x07b", "U+0007"), ("x" * 60, "Shorten"), (None, "text")]
)
def test_an_edit_that_cannot_be_answered_says_why_and_changes_nothing(text, said):
    visitor, holder = Visitor(), loaded_holder(ReplayEngine(limit=50))
    ask(visitor, holder, "One")
    before = visitor.conversation.transcript
    frames = ask(visitor, holder, text, action="edit")
    assert said in frames[-1].notice
    assert {frame.message for frame in frames} == {None}
    assert visitor.conversation.transcript == before


def test_nothing_asked_yet_cannot_be_asked_again():
    visitor, holder = Visitor(), loaded_holder(ReplayEngine())
    frames = ask(visitor, holder, action="retry")
    assert [frame.notice for frame in frames] == ["Nothing has been asked yet. Send a message first."]


def test_nothing_is_changed_while_an_answer_is_on_its_way():
    visitor, holder = Visitor(), loaded_holder(ReplayEngine())
    answer = chat_handlers.ask(visitor, holder, Question("One", VALUES), frame_s=0)
    for _ in range(3):
        next(answer)
    assert "still on its way" in chat_handlers.undo(visitor).notice
    assert "still on its way" in ask(visitor, holder, action="retry")[0].notice
    assert list(answer)[-1].notice == ""
    assert chat_handlers.undo(visitor).transcript == ""


def test_a_system_message_goes_only_to_a_pair_that_takes_one_and_outlives_clear():
    takes, takes_none = ReplayEngine(info=replay_info(takes_system_message=True)), ReplayEngine()
    visitor, holder = Visitor(), loaded_holder(takes, takes_none)
    ask(visitor, holder, "One", "Rhyme.")
    chat_handlers.clear(visitor)
    ask(visitor, holder, "Two", "Rhyme.")
    assert [roles(prompt) for prompt in takes.prompts] == [
        [("system", "Rhyme."), ("user", "One")],
        [("system", "Rhyme."), ("user", "Two")],
    ]
    holder.load(replay_preset(), no_progress)
    ask(visitor, holder, "Three", "Rhyme.")
    assert "system" not in dict(roles(takes_none.prompts[-1]))


@pytest.mark.parametrize("blank", ["", " \n "])
def test_a_blank_system_message_is_none(blank):
    engine = ReplayEngine(info=replay_info(takes_system_message=True))
    ask(Visitor(), loaded_holder(engine), "One", blank)
    assert roles(engine.prompts[0]) == [("user", "One")]


def test_a_system_message_is_checked_as_a_message_is():
    frames = ask(Visitor(), loaded_holder(ReplayEngine()), "One", "a\ud800b")
    assert "The system message holds half of a character (U+D800" in frames[0].notice


def test_with_a_real_pair_the_system_message_is_in_the_prompt_and_turns_can_be_taken_back(tmp_path):
    target, drafter = save_family(tmp_path, FAMILIES["llama"])
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    visitor, holder = Visitor(), loaded_holder(engine)
    ask(visitor, holder, "Who are you?", "Be a dog.")
    session = visitor.session
    assert "Be a dog." in engine.pair.tokenizer.decode(session.prompt_ids)
    ask(visitor, holder, "Where?", "Be a dog.")
    prompt_ids = list(session.prompt_ids)
    ask(visitor, holder, system="Be a dog.", action="retry")
    assert session.prompt_ids == prompt_ids
    chat_handlers.undo(visitor)
    ask(visitor, holder, "Why?", action="edit")
    assert "Be a dog." not in engine.pair.tokenizer.decode(session.prompt_ids)
    assert len(visitor.conversation.messages) == 2
    engine.unload()
