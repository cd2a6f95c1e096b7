"""The Compare tab: one prompt answered with and without drafts, measured, replayed and explained.

Lays components out and wires them, at the end; what happens is in compare_handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

import specdec_core as sd

from . import compare_handlers
from .compare_handlers import CompareFrame
from .frames import notice
from .holder import EngineHolder
from .presets import Presets
from .race import race_view
from .settings_panel import common_controls
from .visitors import Visitors

_INTRO = """
<p class="tab-intro">The same model answers the same prompt twice, under the same settings and one after the
other: token by token (<em>plain decoding</em>), and with drafts (<em>speculative decoding</em>). Then both
answers are replayed side by side at the pace at which they were made.</p>
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
        with gr.Accordion("Settings", open=False, elem_id="compare-settings"):
            controls, ngram = _controls()
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

    def on_start(request: gr.Request, text: str, third: bool, *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in compare_handlers.run(visitor, holder, text, values, third):
            yield updates(frame, frame.progress, frame.headline, frame.race, frame.charts)

    def on_list(request: gr.Request, typed: str, third: bool, *values: Any) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        for frame in compare_handlers.run_list(visitor, holder, typed, values, third):
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
    gr.on([start.click, prompt.submit], on_start, [prompt, ngram, *controls], parts, **quiet)
    start_list.click(on_list, [prompts, ngram, *controls], list_parts, **quiet)
    file.upload(on_file, file, [prompts, list_progress], **quiet)
    gr.on([cancel.click, cancel_list.click], on_cancel, queue=False, **quiet)
    tab.select(follow, [prompt, seen], follow_parts, queue=False, **quiet)
    return CompareTab(follow_parts, follow)


def _controls() -> tuple[list[Any], gr.Checkbox]:
    """The components in the order of compare_handlers.CONTROLS, and the choice of a third lane."""
    start = dict(zip(compare_handlers.CONTROLS, compare_handlers.control_values(sd.Settings()), strict=True))
    common = common_controls(
        start,
        lowest_gamma=1,
        gamma_info="Tokens drafted in a round.",
        verification_info="With coupled and a seed both texts are the same; with rejection they only follow "
        "the same probabilities.",
        seed_info="The same for all lanes.",
    )
    ngram = gr.Checkbox(
        value=False,
        label="A third lane: drafts by repetition (n-gram)",
        info="Drafts what followed the same words earlier; needs no drafter.",
        elem_id="compare-ngram",
    )
    return common, ngram
