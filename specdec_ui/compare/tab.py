"""The Compare tab: one prompt answered with and without drafts, measured, replayed and explained.

Lays components out and wires them, at the end; what happens is in compare_handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts.frames import notice
from ..parts.settings_panel import common_controls
from ..state import space
from ..state.holder import EngineHolder
from ..state.presets import Presets
from ..state.visitors import Visitors
from . import handlers as compare_handlers
from .comparison import PEERS, TITLES
from .handlers import CompareFrame
from .race import race_view
from .run import Asked

_INTRO = """
<p class="tab-intro">The same model answers the same prompt twice under the same settings: token by token
(<em>plain decoding</em>), and with drafts (<em>speculative decoding</em>). One after the other gives the fair
figures, and then both answers are replayed side by side at the pace at which they were made; live, you see
them as they are made, a round of each in turn.</p>
"""


@dataclass(frozen=True)
class CompareTab:
    """What the page calls when a pair was loaded, so that prompt and settings follow it."""

    parts: list[Any]
    """What `follow` returns values for; it is called with those of the first two."""
    follow: Callable[[str, int], list[Any]]


def compare_tab(holder: EngineHolder, visitors: Visitors, presets: Presets, example: str) -> CompareTab:
    """Builds the tab inside the Blocks being built; `example` is the prompt that it begins with."""
    with gr.Tab("Compare", id="compare") as tab:
        gr.HTML(_INTRO, apply_default_css=False)
        with gr.Row(elem_classes="composer compare-composer"):
            prompt = gr.Textbox(
                value=example,
                label="Prompt",
                lines=2,
                max_lines=8,
                elem_id="compare-prompt",
                scale=8,
                min_width=200,
            )
            start = gr.Button("Compare", variant="primary", elem_id="compare-start", scale=0, min_width=110)
            cancel = gr.Button("Cancel", elem_id="compare-cancel", scale=0, min_width=90, interactive=False)
        mode = gr.Radio(
            [("One after the other, then replay", "after"), ("Live, alternating rounds", "live")],
            value="after",
            label="When each lane runs",
            show_label=False,
            container=False,
            elem_id="compare-mode",
            visible=not space.on_zero_gpu(),  # there an answer has the GPU to itself
        )
        with gr.Accordion("Settings", open=False, elem_id="compare-settings"):
            controls = _controls()
            lanes = gr.CheckboxGroup(
                [("drafts by repetition (n-gram)", "ngram")] + [(TITLES[name], name) for name in PEERS],
                label="More lanes",
                info="N-gram drafts what followed the same words earlier; it needs no drafter. transformers' "
                "lanes run its own code on the same models, with random draws of its own; nobody else's "
                "answer goes on meanwhile.",
                elem_id="compare-lanes",
            )
        progress = gr.HTML("", elem_id="compare-progress", apply_default_css=False)
        headline = gr.HTML("", elem_id="compare-headline", apply_default_css=False)
        race = race_view()
        charts = gr.HTML("", elem_id="compare-charts", apply_default_css=False)
        with gr.Accordion("A list of prompts", open=False, elem_id="compare-list"):
            prompts = gr.Textbox(
                label="Prompts, one a line",
                lines=5,
                max_lines=12,
                elem_id="compare-prompts",
            )
            with gr.Row(elem_classes="list-buttons"):
                start_list = gr.Button("Compare the list", elem_id="compare-start-list", min_width=200)
                cancel_list = gr.Button(
                    "Cancel", elem_id="compare-cancel-list", min_width=90, interactive=False
                )
                file = gr.UploadButton(
                    "Read it from a file", type="binary", elem_id="compare-file", min_width=200
                )
            list_progress = gr.HTML("", elem_id="compare-list-progress", apply_default_css=False)
            table = gr.HTML("", elem_id="compare-table", apply_default_css=False)
        seen = gr.State(0)

    def updates(frame: CompareFrame, *shown: str | None) -> list[Any]:
        buttons = [gr.skip()] * 3
        if frame.running is not None:
            idle = gr.update(interactive=not frame.running)
            buttons = [idle, idle, gr.update(interactive=frame.running)]
        return [gr.skip() if value is None else value for value in shown] + buttons

    def asked(more: list[str], mode: str = "after") -> Asked:
        return Asked("ngram" in more, tuple(name for name in more if name in PEERS), mode == "live")

    def on_start(
        request: gr.Request, text: str, chosen: str, more: list[str], *values: Any
    ) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in compare_handlers.run(visitor, holder, text, values, asked(more, chosen)):
            yield updates(frame, frame.progress, frame.headline, frame.race, frame.charts)

    def on_list(request: gr.Request, typed: str, more: list[str], *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in compare_handlers.run_list(visitor, holder, typed, values, asked(more)):
            yield updates(frame, frame.progress, frame.table)

    def on_file(data: bytes | None) -> list[Any]:
        try:
            return [compare_handlers.read_prompts_file(data or b""), ""]
        except sd.SpecDecError as error:
            return [gr.skip(), notice(str(error))]

    def on_cancel(request: gr.Request) -> None:
        visitors.of(request.session_hash).stop()

    examples = {text for preset in presets.usable.values() for text in preset.examples}

    def follow(typed: str, number: int) -> list[Any]:
        loaded = holder.current
        if loaded is None or loaded.number == number:
            return [gr.skip()] * len(follow_parts)
        own = list(loaded.preset.examples)
        new_prompt = own[0] if own and (not typed or typed in examples) else gr.skip()
        return [new_prompt, loaded.number, *compare_handlers.control_values(loaded.engine.default_settings)]

    parts = [progress, headline, race, charts, start, start_list, cancel]
    list_parts = [list_progress, table, start, start_list, cancel_list]
    follow_parts = [prompt, seen, *controls]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on([start.click, prompt.submit], on_start, [prompt, mode, lanes, *controls], parts, **quiet)
    start_list.click(on_list, [prompts, lanes, *controls], list_parts, **quiet)
    file.upload(on_file, file, [prompts, list_progress], **quiet)
    gr.on([cancel.click, cancel_list.click], on_cancel, queue=False, **quiet)
    tab.select(follow, [prompt, seen], follow_parts, queue=False, **quiet)
    return CompareTab(follow_parts, follow)


def _controls() -> list[Any]:
    """The components in the order of compare_handlers.CONTROLS."""
    start = dict(zip(compare_handlers.CONTROLS, compare_handlers.control_values(sd.Settings()), strict=True))
    return common_controls(
        start,
        lowest_gamma=1,
        gamma_info="Tokens drafted in a round.",
        verification_info="With coupled and a seed both texts are the same; with rejection they only follow "
        "the same probabilities.",
        seed_info="The same for all lanes.",
    )
