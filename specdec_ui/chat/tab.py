"""The chat tab: conversation and message box on one side, the token view on the other.

Lays components out and wires them, at the end; what happens is in chat_handlers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..parts import frames
from ..parts.settings_panel import controls
from ..parts.token_view import token_view
from ..state.holder import EngineHolder
from ..state.visitors import Visitors
from . import handlers as chat_handlers
from .conversation_view import conversation_view


@dataclass(frozen=True)
class ChatTab:
    """What the rest of the page changes when a pair is loaded."""

    settings: list[Any]
    examples: gr.Dataset
    system: gr.Textbox


def chat_tab(holder: EngineHolder, visitors: Visitors, examples: list[str]) -> ChatTab:
    """Builds the tab inside the Blocks being built."""
    with gr.Row(elem_classes="chat-columns"):
        with gr.Column(scale=6, min_width=320, elem_classes="chat-column"):
            conversation = conversation_view()
            notice = gr.HTML("", elem_id="notice", apply_default_css=False)
            with gr.Row(elem_classes="composer"):
                message = gr.Textbox(
                    show_label=False,
                    label="Message",
                    placeholder="Write a message, Enter sends it",
                    lines=1,
                    max_lines=8,
                    elem_id="message",
                    container=False,
                    scale=8,
                    min_width=180,
                    html_attributes=gr.InputHTMLAttributes(autocorrect="off", spellcheck=False),
                )
                send = gr.Button("Send", variant="primary", elem_id="send", scale=0, min_width=76)
                stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=76, interactive=False)
                clear = gr.Button("Clear", elem_id="clear", scale=0, min_width=76)
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
            system = gr.Textbox(
                value="",
                label="System message",
                info="Tells the model how to answer. It stays until you change it.",
                placeholder="For example: Answer in one sentence.",
                lines=2,
                max_lines=8,
                elem_id="system",
                visible=False,
                html_attributes=gr.InputHTMLAttributes(autocorrect="off", spellcheck=False),
            )
            settings = controls()

    def on_send(request: gr.Request, text: str, head: str, *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in chat_handlers.send(visitor, holder, text, values, head):
            yield frames.updates(frame)

    def on_retry(request: gr.Request, head: str, *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in chat_handlers.retry(visitor, holder, values, head):
            yield frames.updates(frame)

    def on_edit(request: gr.Request, event: gr.EventData, head: str, *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in chat_handlers.edit(visitor, holder, event.text, values, head):
            yield frames.updates(frame)

    def on_undo(request: gr.Request) -> list[Any]:
        return frames.updates(chat_handlers.undo(visitors.of(request.session_hash)))

    def on_stop(request: gr.Request) -> None:
        visitors.of(request.session_hash).stop()

    def on_clear(request: gr.Request) -> list[Any]:
        return frames.updates(chat_handlers.clear(visitors.of(request.session_hash)))

    parts = [message, conversation, tokens, notice, send, stop, clear]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    asking = {"fn": on_send, "inputs": [message, system, *settings], "outputs": parts, **quiet}
    gr.on([send.click, message.submit], **asking)
    samples.click(lambda sample: sample[0], samples, message, queue=False, **quiet).then(**asking)
    stop.click(on_stop, queue=False, **quiet)
    clear.click(on_clear, outputs=parts, **quiet)
    conversation.retry(on_retry, [system, *settings], parts, **quiet)
    conversation.edit(on_edit, [system, *settings], parts, **quiet)
    conversation.undo(on_undo, outputs=parts, **quiet)
    return ChatTab(settings, samples, system)
