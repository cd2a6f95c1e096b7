"""Handlers of the Chat tab: plain functions from input to frames.

They know visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import specdec_core as sd

from ..loading import handlers as load_handlers
from ..parts.frames import Frame, LoadFrame
from ..parts.messages import checked_message, checked_system_message
from ..parts.settings_panel import CHAT_PANEL
from ..state.conversation import Conversation
from ..state.holder import EngineHolder
from ..state.presets import Presets
from ..state.visitors import Visitor

log = logging.getLogger(__name__)

FRAME_S = 0.03
"""Shortest time between two frames, so that a slow browser keeps up."""


@dataclass(frozen=True)
class Question:
    """A question to the loaded pair, with the panel's values. "edit" and "retry" replace the last question
    and its answer; a retry repeats the last question and ignores `text`.
    """

    text: object
    values: Sequence[Any]
    system: object = ""
    action: Literal["send", "edit", "retry"] = "send"


def ask(
    visitor: Visitor, holder: EngineHolder, question: Question, frame_s: float = FRAME_S
) -> Iterator[Frame]:
    """Ask the loaded pair and yield the growing answer, at most every `frame_s`. A sent text that cannot be
    answered returns to the message box; an edit or retry then leaves the last turn as it is.
    """
    again = question.action != "send"
    try:
        visitor.require_idle()
        retried = question.action == "retry"
        text = checked_message(visitor.conversation.question if retried else question.text)
        system = checked_system_message(question.system)
        loaded = holder.require()
        context_length = loaded.engine.info.context_length
        settings = CHAT_PANEL.settings(loaded.default_settings, question.values, context_length)
    except sd.SpecDecError as error:
        yield Frame(notice=str(error))
        return
    conversation = visitor.conversation
    yield Frame(message=None if again else "", notice="", answering=True)
    begun, notice, due = False, "", 0.0
    try:
        with closing(visitor.ask(text, settings, holder, system, again)) as steps:
            for step in steps:
                begun = isinstance(step, sd.Round)
                if time.monotonic() >= due:
                    yield Frame(transcript=conversation.transcript, tokens=conversation.tokens)
                    due = time.monotonic() + frame_s
    except sd.SpecDecError as error:
        notice = str(error)
    except Exception:
        log.exception("An answer broke off")
        notice = "The answer broke off because of a fault on the server; its log has the details. Try again."
    yield Frame(
        message=None if begun or again else text,
        transcript=conversation.transcript,
        tokens=conversation.tokens,
        notice=notice,
        answering=False,
    )


def load_and_ask(
    visitor: Visitor,
    holder: EngineHolder,
    presets: Presets,
    name: str,
    question: Question,
    frame_s: float = FRAME_S,
) -> Iterator[Frame | LoadFrame]:
    """Load a preset, or wait for the load in progress, and ask with that pair's settings.

    The message stays in its box until then.
    """
    try:
        checked_message(question.text)
    except sd.PromptError as error:
        yield Frame(notice=str(error))
        return
    yield Frame(waiting=f"Your message is sent as soon as {holder.loading or name} is loaded.")
    error = None
    for frame in load_handlers.first_load(visitor, holder, presets, name):
        error = frame.error
        yield frame
    if holder.current is None:
        yield Frame(notice=error, answering=False)
        return
    yield Frame(notice="", answering=False)
    values = CHAT_PANEL.values(holder.current.default_settings)
    yield from ask(visitor, holder, replace(question, values=values), frame_s)


def undo(visitor: Visitor) -> Frame:
    """Remove the last question and its answer."""
    return _changed(visitor, Conversation.undo)


def clear(visitor: Visitor) -> Frame:
    """Remove the whole conversation."""
    return _changed(visitor, Conversation.clear)


def _changed(visitor: Visitor, change: Callable[[Conversation], None]) -> Frame:
    try:
        with visitor.turn():
            conversation = visitor.conversation
            change(conversation)
            return Frame(transcript=conversation.transcript, tokens=conversation.tokens, notice="")
    except sd.SpecDecError as error:
        return Frame(notice=str(error))
