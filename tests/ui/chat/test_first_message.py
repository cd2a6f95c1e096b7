"""A message sent before a pair is loaded: the pair is loaded first."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import specdec_core as sd
from specdec_ui.chat import handlers as chat_handlers
from specdec_ui.chat.handlers import Question
from specdec_ui.loading import handlers as load_handlers
from specdec_ui.parts import frames
from specdec_ui.parts.frames import Frame, LoadFrame
from specdec_ui.parts.settings_panel import CHAT_PANEL
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.visitors import Visitor
from tests.support.replay import ReplayEngine, load_in_turn, replay_presets

PRESETS = replay_presets("stories")
VALUES = tuple(CHAT_PANEL.values(sd.Settings(max_new_tokens=3)))


def send(holder, text="Tell me a story.", visitor=None):
    """All frames of a message, those of the chat and those of the load bar."""
    question = Question(text, VALUES)
    steps = chat_handlers.load_and_ask(visitor or Visitor(), holder, PRESETS, "stories", question, frame_s=0)
    return list(steps)


def refuse(preset, on_progress, cancel):
    raise sd.LoadError("The weights are missing.")


def test_the_chosen_pair_is_loaded_and_answers_with_its_own_settings():
    engine = ReplayEngine(default_settings=sd.Settings(gamma=2, max_new_tokens=77))
    visitor = Visitor()
    steps = send(EngineHolder(load_in_turn(engine)), visitor=visitor)
    assert engine.prompts == [[{"role": "user", "content": "Tell me a story."}]]
    assert visitor.traces[1].settings["max_new_tokens"] == 77
    assert [step.loaded for step in steps if isinstance(step, LoadFrame)][-1] == "stories"
    last = steps[-1]
    assert (last.notice, last.answering) == ("", False)


def test_until_the_pair_is_there_the_message_stays_and_the_wait_is_said():
    steps = send(EngineHolder(load_in_turn(ReplayEngine())))
    assert "as soon as stories is loaded" in steps[0].waiting
    cleared = [at for at, step in enumerate(steps) if isinstance(step, Frame) and step.message == ""]
    loaded = [at for at, step in enumerate(steps) if isinstance(step, LoadFrame) and step.loaded]
    assert loaded[0] < cleared[0]
    message, *_, line, send_button, stop, clear = frames.updates(steps[0])
    assert "value" not in message
    assert "notice-waiting" in line
    assert [button["interactive"] for button in (send_button, stop, clear)] == [False] * 3


def test_a_refused_load_keeps_the_message_and_says_why():
    steps = send(EngineHolder(refuse))
    assert steps[-1] == Frame(notice="stories was not loaded. The weights are missing.", answering=False)
    assert all(step.message is None for step in steps if isinstance(step, Frame))


@pytest.mark.parametrize("text", ["", "  ", "a \x07 b", None])
def test_what_is_no_message_loads_nothing(text):
    holder = EngineHolder(refuse)
    assert len(send(holder, text)) == 1
    assert holder.loading is None


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_message_during_a_load_waits_for_its_end(succeeds):
    begun, may_end = threading.Event(), threading.Event()

    def load(preset, on_progress, cancel):
        begun.set()
        may_end.wait()
        return ReplayEngine() if succeeds else refuse(preset, on_progress, cancel)

    holder = EngineHolder(load)
    with ThreadPoolExecutor() as threads:
        other = threads.submit(list, load_handlers.load(Visitor(), holder, PRESETS, "stories"))
        begun.wait()
        steps = chat_handlers.load_and_ask(
            Visitor(), holder, PRESETS, "another", Question("Hello", VALUES), frame_s=0
        )
        assert "as soon as stories is loaded" in next(steps).waiting
        may_end.set()
        last = list(steps)[-1]
        assert other.result()
    assert last.answering is False
    assert ("No model was loaded" in last.notice) == (not succeeds)


def test_an_answer_that_cannot_go_on_keeps_what_was_said_and_the_page_goes_on():
    class Failing(ReplayEngine):
        def rounds(self, rounds, cancel):
            yield from list(super().rounds(rounds, cancel))[:3]
            raise sd.AnswerError("Memory ran out on the CPU. Ask for a shorter answer.")

    visitor, holder = Visitor(), EngineHolder(load_in_turn(Failing()))
    last = send(holder, visitor=visitor)[-1]
    assert (last.message, last.notice) == (None, "Memory ran out on the CPU. Ask for a shorter answer.")
    assert last.answering is False
    assert visitor.conversation.messages[-1]["role"] == "assistant"
    assert visitor.conversation.messages[-1]["content"] in ReplayEngine().text
    assert "Broken off" in last.transcript
    again = list(chat_handlers.ask(visitor, holder, Question("Go on", VALUES), frame_s=0))
    assert "Memory ran out" in again[-1].notice
