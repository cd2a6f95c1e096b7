"""What the chat does when a person does something: plain functions from input to frames.

Knows visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import specdec_core as sd

from .frames import Frame
from .holder import EngineHolder
from .messages import checked_message
from .settings_panel import settings_from
from .visitors import Visitor

log = logging.getLogger(__name__)


FRAME_S = 0.03
"""Rounds that follow each other faster are shown together, so that a slow browser keeps up."""


def send(
    visitor: Visitor, holder: EngineHolder, text: str, values: tuple[Any, ...], frame_s: float = FRAME_S
) -> Iterator[Frame]:
    """Asks, and shows the answer as it grows. What was typed comes back where it could not be answered."""
    try:
        message = checked_message(text)
        visitor.require_idle()
        settings = settings_from(holder.require().engine.default_settings, values)
    except sd.SpecDecError as error:
        yield Frame(notice=str(error))
        return
    conversation = visitor.conversation
    yield Frame(message="", notice="", answering=True)
    begun, notice, due = False, "", 0.0
    try:
        with closing(visitor.ask(message, settings, holder)) as rounds:
            for rnd in rounds:
                begun = rnd is not None
                if time.monotonic() >= due:
                    yield Frame(shown=conversation.shown, tokens=conversation.tokens)
                    due = time.monotonic() + frame_s
    except sd.SpecDecError as error:
        notice = str(error)
    except Exception:
        log.exception("An answer broke off")
        notice = "The answer broke off because of a fault on the server; its log has the details. Send again."
    yield Frame(
        message=None if begun else text,
        shown=conversation.shown,
        tokens=conversation.tokens,
        notice=notice,
        answering=False,
    )


def clear(visitor: Visitor) -> Frame:
    """Begins the conversation anew."""
    try:
        with visitor.turn():
            visitor.conversation.clear()
    except sd.SpecDecError as error:
        return Frame(notice=str(error))
    return Frame(shown="", tokens="", notice="")
