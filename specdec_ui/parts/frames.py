"""Frames: the next state of a part of the page as plain data, and its conversion to Gradio's updates.

Handlers yield frames, so that they can be tested without a browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Literal, TypedDict

import gradio as gr


class ListenerOptions(TypedDict):
    """Options of Gradio's event listeners."""

    api_visibility: Literal["private"]
    show_progress: Literal["hidden"]


QUIET: ListenerOptions = {"api_visibility": "private", "show_progress": "hidden"}
"""Options of every listener of the page: no endpoint of its own, and no progress bar over its outputs."""


class UncheckedOptions(ListenerOptions):
    """Options of listeners that get values as browsers send them."""

    preprocess: Literal[False]


UNCHECKED: UncheckedOptions = {**QUIET, "preprocess": False}
"""QUIET for listeners with settings. Gradio's own checks of a number name no field; those of a Panel do."""


@dataclass(frozen=True)
class Frame:
    """State of the Chat tab; None leaves a part as it is. `answering` enables and disables the buttons;
    `waiting` is what an accepted message waits for, in words.
    """

    message: str | None = None
    transcript: str | None = None
    tokens: str | None = None
    notice: str | None = None
    answering: bool | None = None
    waiting: str = ""


FRAME_PARTS = ("message", "conversation", "tokens", "notice", "send", "stop", "clear")
"""Components that a frame updates, in the order of `updates`."""


def updates(frame: Frame) -> list[Any]:
    """Convert a frame to updates of the components named in FRAME_PARTS."""
    line = None if frame.notice is None else notice(frame.notice)
    if frame.waiting:
        line = f'<p class="notice-waiting" role="status">{escape(frame.waiting)}</p>'
    values = [frame.message, frame.transcript, frame.tokens, line]
    buttons = [gr.skip()] * 3
    if frame.waiting:
        buttons = [gr.update(interactive=False)] * 3
    elif frame.answering is not None:
        idle = not frame.answering
        buttons = [gr.update(interactive=idle), gr.update(interactive=not idle), gr.update(interactive=idle)]
    return [gr.skip() if value is None else value for value in values] + buttons


def notice(text: str) -> str:
    """Return a message to the person as HTML, for the line above the message box."""
    return f'<p class="notice" role="alert">{escape(text)}</p>' if text else ""


@dataclass(frozen=True)
class LoadFrame:
    """State of the load bar; None leaves a part as it is. `status` is HTML from loading/status.py. `own` is
    True during a load that this page began and may cancel. `error` is the reason why nothing was loaded.
    """

    status: str | None = None
    loading: bool = False
    own: bool = False
    settings: list[Any] | None = None
    takes_system_message: bool | None = None
    can_switch_thinking: bool | None = None
    examples: list[str] | None = None
    loaded: str | None = None
    error: str | None = None
