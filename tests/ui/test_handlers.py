"""Handlers of chat and load bar, without a browser."""

import pytest

import specdec_core as sd
from specdec_ui.chat import handlers as chat_handlers
from specdec_ui.chat.handlers import Question
from specdec_ui.loading import handlers as load_handlers
from specdec_ui.parts.settings_panel import CHAT_PANEL
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.visitors import Visitor
from tests.support.replay import ReplayEngine, loaded_holder, replay_presets

VALUES = tuple(CHAT_PANEL.values(sd.Settings()))


def send(visitor, holder, text, values=VALUES):
    return list(chat_handlers.ask(visitor, holder, Question(text, values), frame_s=0))


def test_an_answer_streams_and_gives_the_buttons_back():
    frames = send(Visitor(), loaded_holder(), "Tell me a story.")
    assert (frames[0].message, frames[0].answering) == ("", True)
    assert (frames[-1].message, frames[-1].answering, frames[-1].notice) == (None, False, "")
    assert len(frames) > 10


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("a \ud800 b", "U+D800"),
        ("a \x07 b", "U+0007"),
        ("\x00", "U+0000"),
        (None, "must be text"),
    ],
)
def test_what_is_no_message_is_explained_and_what_was_typed_stays(text, said):
    frames = send(Visitor(), loaded_holder(), text)
    assert len(frames) == 1
    assert said in frames[0].notice
    assert frames[0].message is None


def test_a_message_that_the_engine_refuses_comes_back_to_the_box():
    visitor = Visitor()
    frames = send(visitor, loaded_holder(ReplayEngine(limit=50)), "x" * 100_000)
    assert frames[-1].message == "x" * 100_000
    assert "Shorten it" in frames[-1].notice
    assert frames[-1].answering is False
    assert visitor.conversation.messages == []
    assert send(visitor, loaded_holder(), "Tell me a story.")[-1].notice == ""


def test_without_a_model_send_says_what_to_do():
    frames = send(Visitor(), EngineHolder(), "Tell me a story.")
    assert "Press Load" in frames[0].notice
    assert frames[0].message is None


def test_a_wrong_setting_is_explained():
    values = (-1, *VALUES[1:])
    assert "gamma" in send(Visitor(), loaded_holder(), "Hello", values)[0].notice


def test_a_fault_in_the_engine_does_not_lock_the_conversation():
    engine = ReplayEngine()
    engine.stream = lambda *arguments: 1 / 0
    visitor = Visitor()
    frames = send(visitor, loaded_holder(engine), "Hello")
    assert (frames[-1].message, frames[-1].answering) == ("Hello", False)
    assert "fault" in frames[-1].notice
    assert send(visitor, loaded_holder(), "Hello")[-1].notice == ""


def test_counts_of_one_are_singular():
    engine = ReplayEngine(text="Yes sir", default_settings=sd.Settings(max_new_tokens=3))
    visitor = Visitor()
    send(visitor, loaded_holder(engine), "Hi")
    assert visitor.traces[1].label.endswith("2 tokens")
    engine.text = "Yes"
    send(visitor, loaded_holder(engine), "Hi")
    assert visitor.traces[2].label.endswith("1 token")


def test_a_second_question_while_one_is_answered_is_refused_and_changes_nothing():
    visitor, holder = Visitor(), loaded_holder()
    first = chat_handlers.ask(visitor, holder, Question("One", VALUES), frame_s=0)
    for _ in range(3):
        next(first)
    second = send(visitor, holder, "Two")
    assert "still on its way" in second[0].notice
    assert second[0].answering is None
    assert list(first)[-1].notice == ""


def test_rounds_that_come_faster_than_frames_are_shown_together():
    visitor = Visitor()
    question = Question("Tell me a story.", VALUES)
    frames = list(chat_handlers.ask(visitor, loaded_holder(), question, frame_s=60))
    assert len(frames) == 3
    assert frames[-1].transcript == visitor.conversation.transcript


def test_clear_begins_anew():
    visitor, holder = Visitor(), loaded_holder()
    send(visitor, holder, "One")
    frame = chat_handlers.clear(visitor)
    assert (frame.transcript, frame.tokens) == ("", "")
    assert visitor.conversation.messages == []


@pytest.mark.parametrize("gamma", [0, 3, "auto"])
def test_panel_values_and_settings_are_inverse(gamma):
    settings = sd.Settings(
        gamma=gamma, temperature=0.0, top_k=40, seed=7, verification="coupled", drafting="ngram", stop=["x"]
    )
    assert CHAT_PANEL.settings(settings, CHAT_PANEL.values(settings), 2048) == settings


def test_browsers_send_whole_numbers_as_floats_and_leave_numbers_out():
    given = dict(zip(CHAT_PANEL.fields, VALUES, strict=True))
    given |= {"gamma": 3.0, "temperature": 1, "max_new_tokens": 20.0, "top_k": None, "seed": 5.0}
    settings = CHAT_PANEL.settings(sd.Settings(), tuple(given.values()), 2048)
    assert (settings.gamma, settings.max_new_tokens, settings.top_k, settings.seed) == (3, 20, 0, 5)


def test_a_refused_pair_leaves_the_loaded_one():
    def load(preset, on_progress, cancel):
        if preset.name == "other":
            raise sd.LoadError("The weights of other are missing.")
        return ReplayEngine()

    holder, visitor = EngineHolder(load), Visitor()
    presets = replay_presets("replay", "other")
    assert 'data-state="ready"' in list(load_handlers.load(visitor, holder, presets, "replay"))[-1].status
    frame = list(load_handlers.load(visitor, holder, presets, "other"))[-1]
    assert 'data-state="refused"' in frame.status
    assert "weights of other are missing" in frame.status
    assert "is still loaded" in frame.status
    assert send(visitor, holder, "Hello")[-1].notice == ""


def test_progress_is_shown_while_a_pair_loads():
    def load(preset, on_progress, cancel):
        on_progress("Loading the target", 0.5)
        return ReplayEngine()

    frames = list(load_handlers.load(Visitor(), EngineHolder(load), replay_presets("a"), "a"))
    assert frames[0].loading
    assert "Loading the target" in frames[1].status
    assert 'value="0.500"' in frames[1].status


def test_a_panic_of_a_library_while_loading_gives_the_load_button_back():
    """Rust's panics are no Exceptions, and Gradio answers a page for Exceptions only."""

    class PanicException(BaseException):
        pass

    def load(preset, on_progress, cancel):
        raise PanicException("index out of bounds")

    frames = list(load_handlers.load(Visitor(), EngineHolder(load), replay_presets("a"), "a"))
    assert 'data-state="refused"' in frames[-1].status
    assert "failed unexpectedly" in frames[-1].status
    assert not frames[-1].loading


def test_a_locked_page_and_an_unknown_preset_are_refused():
    holder, visitor = loaded_holder(), Visitor()
    presets = replay_presets("replay")
    assert "operator" in list(load_handlers.load(visitor, holder, presets, "replay", True))[-1].status
    assert "no preset" in list(load_handlers.load(visitor, holder, presets, "<b>"))[-1].status


def test_a_page_opened_while_a_pair_loads_waits_for_it():
    visitor = Visitor()

    def load(preset, on_progress, cancel):
        assert 'data-state="loading"' in load_handlers.current(visitor, holder).status
        assert load_handlers.changed(visitor, holder).status is None
        raise sd.LoadError("no weights")

    holder = EngineHolder(load)
    list(load_handlers.load(Visitor(), holder, replay_presets("a"), "a"))
    assert 'data-state="empty"' in load_handlers.changed(visitor, holder).status
    assert load_handlers.changed(visitor, holder).status is None


def test_an_open_page_hears_of_a_pair_that_somebody_else_loaded():
    holder = loaded_holder()
    visitor = Visitor()
    assert "is loaded" in load_handlers.changed(visitor, holder).status
    assert load_handlers.changed(visitor, holder).status is None
