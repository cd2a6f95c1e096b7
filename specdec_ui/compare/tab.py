"""The Compare tab: one prompt answered with and without drafts, measured, replayed and explained.

Lays components out and wires them to the handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts.frames import QUIET, UNCHECKED, notice
from ..state import space
from ..state.holder import EngineHolder
from ..state.presets import Presets
from ..state.visitors import Visitors
from . import handlers as compare_handlers
from .comparison import TITLES
from .handlers import PANEL, CompareFrame, comparable
from .lanes import LaneChoice, available_peers
from .race import race_view

_INTRO = """
<p class="tab-intro">The same model answers the same prompt twice under the same settings: token by token
(<em>plain decoding</em>), and with drafts (<em>speculative decoding</em>). HOW</p>
"""
_IN_TURNS = """In turns, you see both as they are decoded, a few rounds of each at a time, so that other work
of the machine slows both alike. They answer again, unseen, until the speedup is known to 5 %, for four
seconds at most."""
_WHOLE = """Both answers are replayed side by side at the pace at which they were decoded."""


@dataclass(frozen=True)
class CompareTab:
    """The tab's part in a load: prompt, lanes and settings follow the loaded pair.

    `follow` takes the values of `followed` and returns values for all `parts`.
    """

    followed: list[Any]
    parts: list[Any]
    follow: Callable[[str, int, list[str]], list[Any]]


@dataclass(frozen=True)
class _PromptView:
    """Components of the comparison of one prompt."""

    prompt: gr.Textbox
    start: gr.Button
    cancel: gr.Button
    mode: gr.Radio
    controls: list[Any]
    lanes: gr.CheckboxGroup
    progress: gr.HTML
    headline: gr.HTML
    race: gr.HTML
    charts: gr.HTML


@dataclass(frozen=True)
class _ListView:
    """Components of the comparison of a list of prompts."""

    prompts: gr.Textbox
    start: gr.Button
    cancel: gr.Button
    file: gr.UploadButton
    progress: gr.HTML
    table: gr.HTML


def compare_tab(holder: EngineHolder, visitors: Visitors, presets: Presets, example: str) -> CompareTab:
    """Build the tab inside the Blocks being built; `example` is the prompt before the first load."""
    with gr.Tab("Compare", id="compare") as tab:
        gr.HTML(_INTRO.replace("HOW", _WHOLE if space.on_zero_gpu() else _IN_TURNS), apply_default_css=False)
        single = _prompt_view(example)
        with gr.Accordion("A list of prompts", open=False, elem_id="compare-list"):
            several = _list_view()
        pair_number = gr.State(0)
    _wire_runs(single, several, holder, visitors)
    followed = [single.prompt, pair_number, single.lanes]
    parts = [*followed, *single.controls]
    follow = _follower(holder, presets, len(parts))
    tab.select(follow, followed, parts, queue=False, **QUIET)
    return CompareTab(followed, parts, follow)


def _prompt_view(example: str) -> _PromptView:
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
        [("In turns, live", "turns"), ("One after the other, then replay", "after")],
        value="turns",
        label="When each lane runs",
        show_label=False,
        container=False,
        elem_id="compare-mode",
        visible=not space.on_zero_gpu(),  # there an answer has the GPU to itself
    )
    with gr.Accordion("Settings", open=False, elem_id="compare-settings"):
        controls = PANEL.controls(comparable(sd.Settings()))
        lanes = gr.CheckboxGroup(
            [
                ("drafts by repetition (n-gram)", "ngram"),
                ("drafts by repetition, else by the drafter", "both"),
                *((TITLES[name], name) for name in available_peers()),
            ],
            label="More lanes",
            info="N-gram drafts what followed the same words earlier; it needs no drafter. transformers' "
            "lanes run its own code on the same models, with random draws of its own; llama.cpp's runs the "
            "GGUF file in the target's folder, where its package is installed. They cannot pause, so they "
            "answer whole, after the others; nobody else's answer goes on meanwhile.",
            elem_id="compare-lanes",
        )
    return _PromptView(
        prompt,
        start,
        cancel,
        mode,
        controls,
        lanes,
        progress=gr.HTML("", elem_id="compare-progress", apply_default_css=False),
        headline=gr.HTML("", elem_id="compare-headline", apply_default_css=False),
        race=race_view(),
        charts=gr.HTML("", elem_id="compare-charts", apply_default_css=False),
    )


def _list_view() -> _ListView:
    prompts = gr.Textbox(
        label="Prompts, one a line",
        lines=5,
        max_lines=12,
        elem_id="compare-prompts",
    )
    with gr.Row(elem_classes="list-buttons"):
        start = gr.Button("Compare the list", elem_id="compare-start-list", min_width=200)
        cancel = gr.Button("Cancel", elem_id="compare-cancel-list", min_width=90, interactive=False)
        file = gr.UploadButton("Read it from a file", type="binary", elem_id="compare-file", min_width=200)
    return _ListView(
        prompts,
        start,
        cancel,
        file,
        progress=gr.HTML("", elem_id="compare-list-progress", apply_default_css=False),
        table=gr.HTML("", elem_id="compare-table", apply_default_css=False),
    )


def _wire_runs(single: _PromptView, several: _ListView, holder: EngineHolder, visitors: Visitors) -> None:
    """Connect both buttons, cancelling and the upload of a list."""

    def on_start(
        request: gr.Request, prompt: str, mode: str, lanes: list[str], *values: Any
    ) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        choice = LaneChoice.named(lanes, alternate=mode == "turns")
        for frame in compare_handlers.run(visitor, holder, prompt, values, choice):
            yield _updates(frame, frame.progress, frame.headline, frame.race, frame.charts)

    def on_list(request: gr.Request, prompts: str, lanes: list[str], *values: Any) -> Iterator[list[Any]]:
        visitor, choice = visitors.of(request.session_hash), LaneChoice.named(lanes)
        for frame in compare_handlers.run_list(visitor, holder, prompts, values, choice):
            yield _updates(frame, frame.progress, frame.table)

    def on_file(data: bytes | None) -> list[Any]:
        try:
            return [compare_handlers.read_prompts_file(data or b""), ""]
        except sd.SpecDecError as error:
            return [gr.skip(), notice(str(error))]

    def on_cancel(request: gr.Request) -> None:
        visitors.of(request.session_hash).stop()

    starts = [single.start, several.start]
    single_inputs = [single.prompt, single.mode, single.lanes, *single.controls]
    single_parts = [single.progress, single.headline, single.race, single.charts, *starts, single.cancel]
    gr.on([single.start.click, single.prompt.submit], on_start, single_inputs, single_parts, **UNCHECKED)
    list_inputs = [several.prompts, single.lanes, *single.controls]
    list_parts = [several.progress, several.table, *starts, several.cancel]
    several.start.click(on_list, list_inputs, list_parts, **UNCHECKED)
    several.file.upload(on_file, several.file, [several.prompts, several.progress], **QUIET)
    gr.on([single.cancel.click, several.cancel.click], on_cancel, queue=False, **QUIET)


def _updates(frame: CompareFrame, *html: str | None) -> list[Any]:
    """Values for the parts that show `html`, then for both start buttons and the cancel button."""
    buttons = [gr.skip()] * 3
    if frame.running is not None:
        start = gr.update(interactive=not frame.running)
        buttons = [start, start, gr.update(interactive=frame.running)]
    return [gr.skip() if value is None else value for value in html] + buttons


def _follower(
    holder: EngineHolder, presets: Presets, parts: int
) -> Callable[[str, int, list[str]], list[Any]]:
    examples = {text for preset in presets.usable.values() for text in preset.examples}

    def follow(prompt: str, pair_number: int, lanes: list[str]) -> list[Any]:
        """Values of a newly loaded pair; a prompt that is not an example stays. Among the lanes is the way in
        which the pair's chat drafts.
        """
        loaded = holder.current
        if loaded is None or loaded.number == pair_number:
            return [gr.skip()] * parts
        own = list(loaded.preset.examples)
        new_prompt = own[0] if own and (not prompt or prompt in examples) else gr.skip()
        settings = loaded.default_settings
        lanes = [name for name in lanes if name != "both"] + ["both"] * (settings.drafting == "both")
        return [new_prompt, loaded.number, lanes, *PANEL.values(comparable(settings))]

    return follow
