"""The Pair check tab: may these two models work together? Reads configurations and tokenizers only.

Lays components out and wires the check; the page wires the loading, which shows at its top.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ..state import space
from ..state.holder import EngineHolder
from ..state.visitors import Visitors
from . import handlers as pair_check_handlers
from .handlers import Given, Login, PairFrame

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
    """What the page wires: `load` loads the pair in `passed`, and `about` says what that would replace."""

    load: gr.Button
    passed: gr.State
    about: gr.HTML


def pair_check_tab(holder: EngineHolder, visitors: Visitors, locked: Callable[[], bool]) -> PairCheckTab:
    """Builds the tab inside the Blocks being built."""
    with gr.Tab("Pair check", id="pair-check"):
        gr.HTML(_INTRO, apply_default_css=False)
        with gr.Row(elem_classes="pair-row"):
            target = gr.Textbox(
                label="Target (large)",
                placeholder="Qwen/Qwen2.5-7B-Instruct",
                info="A Hugging Face id, or a folder of the server.",
                elem_id="pair-target",
                max_lines=1,
                min_width=240,
            )
            drafter = gr.Textbox(
                label="Drafter (small)",
                placeholder="Qwen/Qwen2.5-0.5B-Instruct",
                info="A Hugging Face id, or a folder of the server.",
                elem_id="pair-drafter",
                max_lines=1,
                min_width=240,
            )
        with gr.Row(elem_classes="pair-row"):
            target_revision, drafter_revision = (_revision(role) for role in ("target", "drafter"))
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
        if space.offers_login():
            gr.HTML(_LOGIN, apply_default_css=False)
            gr.LoginButton(elem_id="pair-login", min_width=240)
        start = gr.Button("Check", variant="primary", elem_id="pair-start")
        shown = gr.HTML("", elem_id="pair-report", apply_default_css=False)
        with gr.Column(visible=False, elem_id="pair-passed") as after:
            about = gr.HTML("", elem_id="pair-about", apply_default_css=False)
            load = gr.Button("Load this pair", elem_id="pair-load")
            toml = gr.Textbox(
                label="To keep it as a preset of your own",
                interactive=False,
                lines=12,
                max_lines=24,
                buttons=["copy"],
                elem_id="pair-toml",
            )
        passed = gr.State(None)

    def updates(frame: PairFrame) -> list[Any]:
        button = gr.update(interactive=not frame.checking)
        loadable = gr.update(interactive=not locked())
        visible = gr.update(visible=frame.passed is not None)
        return [frame.shown, frame.passed, frame.about, frame.toml, visible, loadable, button]

    def checked(request: gr.Request, given: tuple[Any, ...], login: Login | None) -> Iterator[list[Any]]:
        visitors.of(request.session_hash)
        for frame in pair_check_handlers.check(holder, Given(*given), len(visitors) - 1, locked(), login):
            yield updates(frame)

    def on_check(request: gr.Request, *given: Any) -> Iterator[list[Any]]:
        yield from checked(request, given, None)

    def on_check_with_login(
        request: gr.Request, token: gr.OAuthToken | None, *given: Any
    ) -> Iterator[list[Any]]:
        yield from checked(request, given, Login(token.token if token else None))

    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    gr.on(
        [start.click, target.submit, drafter.submit],
        on_check_with_login if space.offers_login() else on_check,
        [target, drafter, target_revision, drafter_revision, trim, nf4],
        [shown, passed, about, toml, after, load, start],
        **quiet,
    )
    return PairCheckTab(load, passed, about)


def _revision(role: str) -> gr.Textbox:
    return gr.Textbox(
        label=f"Revision of the {role}",
        placeholder="main",
        info="A branch, tag or commit of a Hugging Face id. Empty is its main branch.",
        elem_id=f"pair-{role}-revision",
        max_lines=1,
        min_width=240,
    )
