"""Chat tab: conversation and message box on one side, token view and settings on the other.

Lays components out and wires them; the handlers are in chat/handlers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts import frames
from ..parts.frames import QUIET, UNCHECKED, LoadFrame
from ..parts.settings_panel import CHAT_PANEL
from ..parts.token_view import token_view
from ..state.holder import EngineHolder
from ..state.presets import Presets
from ..state.visitors import Visitor, Visitors
from . import handlers as chat_handlers
from .conversation_view import conversation_view
from .handlers import Question

_PLAIN_TYPING = gr.InputHTMLAttributes(autocorrect="off", spellcheck=False)


@dataclass(frozen=True)
class FirstLoad:
    """The load for a message that is sent before there is a pair: of the `chosen` preset.

    `updates` converts its frames to values of `parts`.
    """

    presets: Presets
    chosen: gr.Dropdown
    parts: list[Any]
    updates: Callable[[LoadFrame, str], list[Any]]


@dataclass(frozen=True)
class _Composer:
    """The message box and its buttons."""

    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    clear: gr.Button


@dataclass(frozen=True)
class ChatTab:
    """Components that follow the loaded pair, and `connect_sending` for the page."""

    settings: list[Any]
    examples: gr.Dataset
    system: gr.Textbox
    notice: gr.HTML
    parts: list[Any]
    composer: _Composer
    holder: EngineHolder
    visitors: Visitors

    def connect_sending(self, first: FirstLoad) -> None:
        """Connect what sends a message: the button, Enter, and the examples."""

        def send(
            request: gr.Request, chosen: str, text: str, system: str, *values: Any
        ) -> Iterator[list[Any]]:
            visitor, question = self.visitors.of(request.session_hash), Question(text, values, system)
            if self.holder.current is not None:
                steps = chat_handlers.ask(visitor, self.holder, question)
            else:
                steps = chat_handlers.load_and_ask(visitor, self.holder, first.presets, chosen, question)
            for step in steps:
                if isinstance(step, LoadFrame):
                    yield [*[gr.skip()] * len(self.parts), *first.updates(step, chosen)]
                else:
                    yield [*frames.updates(step), *[gr.skip()] * len(first.parts)]

        # One function, so that all its events share one limit of answers at a time.
        inputs = [first.chosen, self.composer.message, self.system, *self.settings]
        outputs = [*self.parts, *first.parts]
        gr.on([self.composer.send.click, self.composer.message.submit], send, inputs, outputs, **UNCHECKED)
        example = self.examples.click(
            lambda sample: sample[0], self.examples, self.composer.message, queue=False, **QUIET
        )
        example.then(send, inputs, outputs, **UNCHECKED)


def chat_tab(holder: EngineHolder, visitors: Visitors, examples: list[str]) -> ChatTab:
    """Create the tab inside the Blocks being built, with `examples`; the page connects sending."""
    with gr.Row(elem_classes="chat-columns"):
        with gr.Column(scale=6, min_width=320, elem_classes="chat-column"):
            conversation = conversation_view()
            notice = gr.HTML("", elem_id="notice", apply_default_css=False)
            composer = _composer()
            samples = gr.Dataset(
                components=[gr.Textbox(visible=False)],
                samples=[[text] for text in examples],
                label="Ask for",
                elem_id="examples",
                type="values",
            )
        with gr.Column(min_width=320, elem_classes="chat-column chat-tokens"):
            tokens = token_view()
        with (
            gr.Column(min_width=320, elem_classes="chat-column chat-settings"),
            gr.Accordion("Settings", open=False, elem_id="settings"),
        ):
            system = _system_message()
            settings = CHAT_PANEL.controls(sd.Settings())

    on = _Listeners(holder, visitors)
    stop, clear = composer.stop, composer.clear
    parts = [composer.message, conversation, tokens, notice, composer.send, stop, clear]
    stop.click(on.stop, queue=False, **QUIET)
    clear.click(on.clear, outputs=parts, **QUIET)
    conversation.retry(on.retry, [system, *settings], parts, **UNCHECKED)
    conversation.edit(on.edit, [system, *settings], parts, **UNCHECKED)
    conversation.undo(on.undo, outputs=parts, **QUIET)
    return ChatTab(settings, samples, system, notice, parts, composer, holder, visitors)


def _composer() -> _Composer:
    with gr.Row(elem_classes="composer"):
        return _Composer(
            message=gr.Textbox(
                show_label=False,
                label="Message",
                placeholder="Write a message, Enter sends it",
                lines=1,
                max_lines=8,
                elem_id="message",
                container=False,
                scale=8,
                min_width=180,
                html_attributes=_PLAIN_TYPING,
            ),
            send=gr.Button("Send", variant="primary", elem_id="send", scale=0, min_width=76),
            stop=gr.Button("Stop", elem_id="stop", scale=0, min_width=76, interactive=False),
            clear=gr.Button("Clear", elem_id="clear", scale=0, min_width=76),
        )


def _system_message() -> gr.Textbox:
    return gr.Textbox(
        value="",
        label="System message",
        info="Tells the model how to answer. It stays until you change it.",
        placeholder="For example: Answer in one sentence.",
        lines=2,
        max_lines=8,
        elem_id="system",
        visible=False,
        html_attributes=_PLAIN_TYPING,
    )


@dataclass(frozen=True)
class _Listeners:
    """Listeners of the tab's events: from Gradio's request to frames, and to updates of FRAME_PARTS."""

    holder: EngineHolder
    visitors: Visitors

    def retry(self, request: gr.Request, system: str, *values: Any) -> Iterator[list[Any]]:
        yield from self._answer(request, Question("", values, system, "retry"))

    def edit(
        self, request: gr.Request, event: gr.EventData, system: str, *values: Any
    ) -> Iterator[list[Any]]:
        yield from self._answer(request, Question(event.text, values, system, "edit"))

    def undo(self, request: gr.Request) -> list[Any]:
        return frames.updates(chat_handlers.undo(self._visitor(request)))

    def stop(self, request: gr.Request) -> None:
        self._visitor(request).stop()

    def clear(self, request: gr.Request) -> list[Any]:
        return frames.updates(chat_handlers.clear(self._visitor(request)))

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.visitors.of(request.session_hash)

    def _answer(self, request: gr.Request, question: Question) -> Iterator[list[Any]]:
        for frame in chat_handlers.ask(self._visitor(request), self.holder, question):
            yield frames.updates(frame)
