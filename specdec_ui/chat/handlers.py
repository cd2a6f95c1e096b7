"""What the chat does when a person does something: plain functions from input to frames.

Knows visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import specdec_core as sd

from ..parts.frames import Frame
from ..parts.messages import checked_message, checked_system_message
from ..parts.settings_panel import settings_from
from ..state.conversation import Conversation
from ..state.holder import EngineHolder
from ..state.visitors import Visitor

log = logging.getLogger(__name__)


FRAME_S = 0.03
"""Rounds that follow each other faster are shown together, so that a slow browser keeps up."""


def send(
    visitor: Visitor,
    holder: EngineHolder,
    text: str,
    values: tuple[Any, ...],
    system: str = "",
    frame_s: float = FRAME_S,
) -> Iterator[Frame]:
    """Asks, and shows the answer as it grows. What was typed comes back where it could not be answered."""
    return _answer(visitor, holder, lambda: text, values, system, frame_s, False)


def edit(
    visitor: Visitor,
    holder: EngineHolder,
    text: str,
    values: tuple[Any, ...],
    system: str = "",
    frame_s: float = FRAME_S,
) -> Iterator[Frame]:
    """Asks `text` in place of the last question; where it cannot be answered, the turn stays as it was."""
    return _answer(visitor, holder, lambda: text, values, system, frame_s, True)


def retry(
    visitor: Visitor,
    holder: EngineHolder,
    values: tuple[Any, ...],
    system: str = "",
    frame_s: float = FRAME_S,
) -> Iterator[Frame]:
    """Asks the last question again, for another answer."""
    return _answer(visitor, holder, lambda: visitor.conversation.question, values, system, frame_s, True)


def _answer(
    visitor: Visitor,
    holder: EngineHolder,
    typed: Callable[[], str],
    values: tuple[Any, ...],
    system: str,
    frame_s: float,
    again: bool,
) -> Iterator[Frame]:
    try:
        visitor.require_idle()
        message = checked_message(typed())
        head = checked_system_message(system)
        settings = settings_from(holder.require().engine.default_settings, values)
    except sd.SpecDecError as error:
        yield Frame(notice=str(error))
        return
    conversation = visitor.conversation
    yield Frame(message=None if again else "", notice="", answering=True)
    begun, notice, due = False, "", 0.0
    try:
        with closing(visitor.ask(message, settings, holder, head, again)) as rounds:
            for rnd in rounds:
                begun = rnd is not None
                if time.monotonic() >= due:
                    yield Frame(shown=conversation.shown, tokens=conversation.tokens)
                    due = time.monotonic() + frame_s
    except sd.SpecDecError as error:
        notice = str(error)
    except Exception:
        log.exception("An answer broke off")
        notice = "The answer broke off because of a fault on the server; its log has the details. Try again."
    yield Frame(
        message=None if begun or again else message,
        shown=conversation.shown,
        tokens=conversation.tokens,
        notice=notice,
        answering=False,
    )


def undo(visitor: Visitor) -> Frame:
    """Takes back the last question and its answer."""
    return _changed(visitor, Conversation.undo)


def clear(visitor: Visitor) -> Frame:
    """Begins the conversation anew."""
    return _changed(visitor, Conversation.clear)


def _changed(visitor: Visitor, change: Callable[[Conversation], None]) -> Frame:
    try:
        with visitor.turn():
            change(visitor.conversation)
            return Frame(shown=visitor.conversation.shown, tokens=visitor.conversation.tokens, notice="")
    except sd.SpecDecError as error:
        return Frame(notice=str(error))
