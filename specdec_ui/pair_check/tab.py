"""The Pair check tab: the gate over any two models, from their configurations and tokenizers.

Lays components out and wires the check; the page wires the loading, whose progress is shown at its top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..parts.frames import QUIET
from ..state import space
from ..state.holder import EngineHolder
from ..state.visitors import Visitors
from . import handlers as pair_check_handlers
from .handlers import Login, PairFields, PairFrame

_INTRO = """
<p class="tab-intro">A drafter can only help a target that reads and writes <em>the same tokens</em>: the same
vocabulary, text cut in the same way. This check compares both before anything large is downloaded, from a few
small files. A good drafter is usually a smaller size of the same release.</p>
"""

_LOGIN = """
<p class="tab-intro">Gated models: logged in, you can check those that your account may read. Your token is
used for your own checks, and is neither kept nor shown.</p>
"""


@dataclass(frozen=True)
class PairCheckTab:
    """Parts for the page to wire: `load` loads the pair in `passed`, `progress` shows how that goes, `about`
    describes what it replaces.
    """

    load: gr.Button
    passed: gr.State
    about: gr.HTML
    progress: gr.HTML


@dataclass(frozen=True)
class _ResultView:
    """Components of a check's result."""

    report: gr.HTML
    about: gr.HTML
    load: gr.Button
    progress: gr.HTML
    toml: gr.Textbox
    passed: gr.State


def pair_check_tab(holder: EngineHolder, visitors: Visitors, locked: Callable[[], bool]) -> PairCheckTab:
    """Build the tab inside the Blocks being built."""
    with gr.Tab("Pair check", id="pair-check"):
        gr.HTML(_INTRO, apply_default_css=False)
        fields = _fields()
        if space.offers_login():
            gr.HTML(_LOGIN, apply_default_css=False)
            gr.LoginButton(elem_id="pair-login", min_width=240)
        start = gr.Button("Check", variant="primary", elem_id="pair-start")
        result = _result_view()
    _wire(fields, start, result, holder, visitors, locked)
    return PairCheckTab(result.load, result.passed, result.about, result.progress)


def _fields() -> list[Any]:
    """Components in the order of PairFields."""
    with gr.Row(elem_classes="pair-row"):
        target = _name("Target (large)", "target", "Qwen/Qwen2.5-7B-Instruct")
        drafter = _name("Drafter (small)", "drafter", "Qwen/Qwen2.5-0.5B-Instruct")
    with gr.Row(elem_classes="pair-row"):
        revisions = [_revision(role) for role in ("target", "drafter")]
    with gr.Row(elem_classes="pair-row"):
        trim = gr.Checkbox(
            label="Cut padding off the vocabulary",
            info="For pairs like Qwen2.5 0.5B and 7B, which differ in nothing but unused ids.",
            min_width=240,
        )
        nf4 = gr.Checkbox(
            label="Load in 4 bits on a GPU (NF4)",
            info="A quarter of the memory. On a CPU weights stay as they are.",
            min_width=240,
        )
    return [target, drafter, *revisions, trim, nf4]


def _name(label: str, role: str, example: str) -> gr.Textbox:
    return gr.Textbox(
        label=label,
        placeholder=example,
        info="A Hugging Face id, or a folder or .gguf file of the server.",
        elem_id=f"pair-{role}",
        max_lines=1,
        min_width=240,
    )


def _revision(role: str) -> gr.Textbox:
    return gr.Textbox(
        label=f"Revision of the {role}",
        placeholder="main",
        info="A branch, tag or commit of a Hugging Face id. Empty is its main branch.",
        elem_id=f"pair-{role}-revision",
        max_lines=1,
        min_width=240,
    )


def _result_view() -> _ResultView:
    report = gr.HTML("", elem_id="pair-report", apply_default_css=False)
    about = gr.HTML("", elem_id="pair-about", apply_default_css=False)
    with gr.Row(elem_classes="pair-load-row"):
        load = gr.Button("Load this pair", elem_id="pair-load", visible=False, scale=0, min_width=180)
        progress = gr.HTML("", elem_id="pair-progress", apply_default_css=False)
    toml = gr.Textbox(
        label="To keep it as a preset of your own",
        interactive=False,
        lines=12,
        max_lines=24,
        buttons=["copy"],
        elem_id="pair-toml",
        visible=False,
    )
    return _ResultView(report, about, load, progress, toml, passed=gr.State(None))


def _wire(
    fields: list[Any],
    start: gr.Button,
    result: _ResultView,
    holder: EngineHolder,
    visitors: Visitors,
    locked: Callable[[], bool],
) -> None:
    """Connect the button, and Enter in the fields, with the check; a changed field takes its result back."""

    def updates(frame: PairFrame) -> list[Any]:
        load = gr.update(visible=frame.passed is not None, interactive=not locked())
        toml = gr.update(value=frame.toml, visible=bool(frame.toml))
        button = gr.update(interactive=not frame.checking)
        return [frame.report, frame.about, load, "", toml, frame.passed, button]

    def check(request: gr.Request, values: tuple[Any, ...], login: Login | None) -> Iterator[list[Any]]:
        visitor = visitors.of(request.session_hash)
        others = len(visitors) - 1
        pair = visitor.checked_fields = PairFields(*values)
        for frame in pair_check_handlers.check(holder, pair, others, locked(), login):
            if visitor.checked_fields is not pair:
                break
            yield updates(frame)
        if visitor.checked_fields is None:
            yield updates(PairFrame(""))

    def on_change(request: gr.Request, *values: Any) -> list[Any]:
        visitor = visitors.of(request.session_hash)
        if visitor.checked_fields == PairFields(*values):  # an event that was sent before the check
            return [gr.skip()] * len(outputs)
        visitor.checked_fields = None
        return updates(PairFrame(""))

    def on_check(request: gr.Request, *values: Any) -> Iterator[list[Any]]:
        yield from check(request, values, None)

    def on_check_with_login(
        request: gr.Request, token: gr.OAuthToken | None, *values: Any
    ) -> Iterator[list[Any]]:
        yield from check(request, values, Login(token.token if token else None))

    names = [field for field in fields if isinstance(field, gr.Textbox)]
    outputs = [
        result.report,
        result.about,
        result.load,
        result.progress,
        result.toml,
        result.passed,
        start,
    ]
    gr.on(
        [start.click, *(name.submit for name in names)],
        on_check_with_login if space.offers_login() else on_check,
        fields,
        outputs,
        **QUIET,
    )
    # In the queue, whose messages keep their order: the result of an earlier check cannot arrive afterwards.
    # `change`, since `input` leaves pasted and dropped text out.
    gr.on([field.change for field in fields], on_change, fields, outputs, **QUIET)
