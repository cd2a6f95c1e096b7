"""The Traces tab: an answer of this page, or one from a file, in the token view; saved as JSON or picture.

Lays components out and wires them; trace files and pictures are made elsewhere.
"""

from __future__ import annotations

import itertools
from html import escape
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts import token_view
from ..parts.assets import json_line, view_script
from ..parts.figures import in_words, number
from ..parts.frames import QUIET, notice
from ..parts.terms import term
from ..parts.trace_files import Trace, drafting_in_words, file_name, from_json, to_json
from ..state.visitors import Visitors
from .picture import picture

_INTRO = """
<p class="tab-intro">A trace is all that happened while an answer was made: each round, each draft with both
models' probabilities, each time. Save one to keep or share it, or open one to see it again. A saved trace has
your prompt and the answer in it, but no path and no key of this machine.</p>
"""
_EMPTY = "Choose an answer above, or open a trace from a file."
_numbers = itertools.count(1)


def traces_tab(visitors: Visitors) -> None:
    """Build the tab inside the Blocks being built."""
    with gr.Tab("Traces", id="traces") as tab:
        gr.HTML(_INTRO, apply_default_css=False)
        with gr.Row(elem_classes="load-controls trace-controls"):
            answers = gr.Dropdown(
                [], label="Answers of this page", elem_id="trace-answers", scale=4, min_width=240
            )
            save = gr.Button("Save JSON", elem_id="trace-save", min_width=130, interactive=False)
            draw = gr.Button("Save picture", elem_id="trace-draw", min_width=130, interactive=False)
            file = gr.UploadButton("Open a file", type="binary", elem_id="trace-open", min_width=130)
        facts = gr.HTML("", elem_id="trace-facts", apply_default_css=False)
        view = token_view.token_view(
            "trace-view", "trace", label="the chosen answer", empty=_EMPTY, chooser=False
        )
        saved = gr.HTML(
            "",
            html_template="<span></span>",
            js_on_load=view_script("downloads.js"),
            apply_default_css=False,
            elem_id="trace-saved",
        )
        chosen = gr.State(None)

    def on_select(request: gr.Request, trace: Trace | None) -> list[Any]:
        kept = visitors.of(request.session_hash).traces
        choices = [(f"{at}. {each.label}", at) for at, each in reversed(kept.items())]
        if trace is None and kept:
            return [gr.update(choices=choices, value=choices[0][1]), *show(kept[choices[0][1]])]
        return [gr.update(choices=choices), *[gr.skip()] * 5]

    def on_choose(request: gr.Request, at: int | None) -> list[Any]:
        kept = visitors.of(request.session_hash).traces
        return show(kept[at]) if at in kept else [gr.skip()] * 5

    def on_open(data: bytes | None) -> list[Any]:
        try:
            return [gr.update(value=None), *show(from_json(data or b""))]
        except sd.SpecDecError as error:
            return [gr.skip(), notice(str(error)), *[gr.skip()] * 4]

    parts = [facts, view, chosen, save, draw]
    tab.select(on_select, chosen, [answers, *parts], queue=False, **QUIET)
    answers.input(on_choose, answers, parts, queue=False, **QUIET)
    file.upload(on_open, file, [answers, *parts], **QUIET)
    save.click(lambda trace: _file(trace, "json"), chosen, saved, **QUIET)
    draw.click(lambda trace: _file(trace, "svg"), chosen, saved, **QUIET)


def show(trace: Trace) -> list[Any]:
    """Return the values of facts, token view, state and both buttons for a trace."""
    lines = [token_view.answer_line(next(_numbers), trace.prompt, trace.settings)]
    lines += [token_view.round_line(rnd) for rnd in trace.rounds]
    lines.append(token_view.end_line(trace.finish_reason or ""))
    on = gr.update(interactive=True)
    return [facts_html(trace), "".join(lines), trace, on, on]


def facts_html(trace: Trace) -> str:
    """Return prompt, pair, settings and figures of a trace as HTML; every value is escaped."""
    pair, stats = trace.pair, trace.stats
    values = {
        "pair": pair.get("title"),
        "target": pair.get("target"),
        "drafter": pair.get("drafter"),
        "device": pair.get("device"),
        "precision": pair.get("dtype"),
        "drafting": drafting_in_words(trace.settings),
        "verification": trace.settings.get("verification"),
        "temperature": trace.settings.get("temperature"),
        "seed": trace.settings.get("seed"),
    }
    if stats is not None:
        alpha = stats.acceptance_rate
        values["tokens/s"] = number(stats.tokens_per_second)
        values["acceptance rate"] = number(None if alpha is None else 100 * alpha, 0, " %")
        values["block efficiency"] = number(stats.block_efficiency, 2)
        if stats.same_rows is not None:
            values["same as plain"] = f"{stats.same_rows} of {sd.counted(stats.new_tokens, 'token')}"
    items = "".join(
        f"<div><dt>{term(name)}</dt><dd>{escape(str(value)[:200])}</dd></div>"
        for name, value in values.items()
        if value is not None
    )
    words = f"<p>{escape(in_words(stats))}</p>" if stats is not None else ""
    return (
        f'<div class="trace-facts"><p class="trace-prompt">{escape(trace.prompt[:2000])}</p>{words}'
        f'<dl class="facts">{items}</dl></div>'
    )


def _file(trace: Trace | None, ending: str) -> Any:
    """The line for downloads.js that makes the browser save the trace."""
    if trace is None:
        return gr.skip()
    text, kind = (
        (to_json(trace), "application/json") if ending == "json" else (picture(trace), "image/svg+xml")
    )
    return json_line(number=next(_numbers), name=file_name(trace, ending), type=kind, text=text)
