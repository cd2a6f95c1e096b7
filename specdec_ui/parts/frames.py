"""What a handler wants the page to show next, as plain data, and its one way into Gradio's updates.

Lets handlers be called and tested without a browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr


@dataclass(frozen=True)
class Frame:
    """Only what is not None changes on the page. `answering` decides which buttons can be pressed."""

    message: str | None = None
    shown: str | None = None
    tokens: str | None = None
    notice: str | None = None
    answering: bool | None = None


FRAME_PARTS = ("message", "conversation", "tokens", "notice", "send", "stop", "clear")
"""The components that a frame updates, in the order of `updates`."""


def updates(frame: Frame) -> list[Any]:
    """The frame for the components named in FRAME_PARTS."""
    values = [
        frame.message,
        frame.shown,
        frame.tokens,
        None if frame.notice is None else notice(frame.notice),
    ]
    buttons = [gr.skip()] * 3
    if frame.answering is not None:
        idle = not frame.answering
        buttons = [gr.update(interactive=idle), gr.update(interactive=not idle), gr.update(interactive=idle)]
    return [gr.skip() if value is None else value for value in values] + buttons


def notice(text: str) -> str:
    """A message of the page to the person, for the line above the message box."""
    return f'<p class="notice" role="alert">{escape(text)}</p>' if text else ""


@dataclass(frozen=True)
class LoadFrame:
    """What the top of the page shows next; `status` is HTML made by loading/status.py. `own` tells a load
    that this page asked for, and may call off, from somebody else's.
    """

    status: str | None = None
    loading: bool = False
    own: bool = False
    settings: list[Any] | None = None
    takes_system_message: bool | None = None
    examples: list[str] | None = None
    loaded: str | None = None
