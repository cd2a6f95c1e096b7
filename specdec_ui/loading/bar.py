"""The top of the page: which preset, Load, and what is loaded. Components only; the page wires them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from ..parts.frames import LoadFrame
from ..state.holder import has_gpu
from ..state.presets import Presets
from . import status

DEFAULT_PRESET = "stories"
SMALL_GB = 1.0
"""A download from which on a pair is slow on a CPU."""
FLOAT32_SHARE = 2
"""Weights on the Hub have two bytes each, on the CPU four."""


@dataclass(frozen=True)
class LoadBar:
    preset: gr.Dropdown
    about: gr.HTML
    load: gr.Button
    cancel: gr.Button
    status: gr.HTML

    @property
    def parts(self) -> list[Any]:
        """What `updates` returns values for."""
        return [self.status, self.load, self.preset, self.cancel]


def load_bar(presets: Presets, fixed: str | None) -> LoadBar:
    """`fixed` names the preset that the operator has fixed, if any."""
    names = presets.names()
    start = fixed or (DEFAULT_PRESET if DEFAULT_PRESET in names else next(iter(names), None))
    choices = [(_label(name, presets), name) for name in names]
    with gr.Row(elem_classes="load-bar"):
        with gr.Column(scale=4, min_width=280, elem_classes="load-choice"):
            with gr.Row(elem_classes="load-controls"):
                preset = gr.Dropdown(
                    choices,
                    value=start,
                    label="Pair of models",
                    elem_id="preset",
                    interactive=fixed is None,
                    scale=4,
                    min_width=160,
                )
                load = gr.Button(
                    "Load",
                    variant="primary",
                    elem_id="load",
                    interactive=fixed is None,
                    scale=1,
                    min_width=90,
                )
                cancel = gr.Button("Cancel", elem_id="load-cancel", visible=False, scale=1, min_width=90)
            about = gr.HTML(elem_id="about-preset", apply_default_css=False)
        with gr.Column(scale=6, min_width=280):
            shown = gr.HTML(status.empty(), elem_id="status", apply_default_css=False)
    return LoadBar(preset, about, load, cancel, shown)


def updates(frame: LoadFrame, locked: bool) -> list[Any]:
    """The frame for LoadBar.parts; nobody may choose or load where it is `locked`."""
    if frame.status is None:
        return [gr.skip()] * 4
    variant = "secondary" if frame.loaded or frame.loading else "primary"
    button = gr.update(interactive=not frame.loading and not locked, variant=variant)
    cancel = gr.update(visible=True)
    if not frame.own:
        cancel = gr.update(visible=False, value="Cancel", interactive=True)
    return [frame.status, button, gr.update(interactive=not locked), cancel]


def cancelling(called_off: bool) -> Any:
    """Cancel once it was pressed: what is on its way may take seconds to end."""
    return gr.update(value="Cancelling", interactive=False) if called_off else gr.skip()


def _label(name: str, presets: Presets) -> str:
    return f"{name} · {presets.usable[name].title if name in presets.usable else 'cannot be read'}"


def about(preset: Any, loaded: Any, others: int, locked: bool = False) -> str:
    """What a preset is, and what loading it would take from whom. `others` counts the other open pages."""
    if preset is None:
        return ""
    needs = ""
    if preset.download_gb:
        needs += f" The first load downloads about {preset.download_gb:g} GB."
    if preset.gated:
        page = escape(preset.license_page)
        needs += (
            f' Gated: accept the <a href="{page}" target="_blank" rel="noopener noreferrer">'
            f"{escape(preset.license)}</a> with your Hugging Face account first, and set HF_TOKEN."
        )
    text = f"<p>{escape(preset.description)}{needs}</p>"
    if preset.download_gb >= SMALL_GB and not has_gpu():
        text += (
            f"<p class='about-warning'>There is no GPU here: both models would run in float32 on the CPU, in "
            f"about {FLOAT32_SHARE * preset.download_gb:.0f} GB of memory, and an answer would take minutes. "
            "<em>stories</em> needs none of that.</p>"
        )
    if locked:
        text += "<p>The operator of this page has fixed what is loaded.</p>"
    elif loaded is not None and loaded.preset.name != preset.name:
        whom = "everybody on this page"
        if others:
            whom += f", {others} other{'s' if others > 1 else ''} just now"
        text += (
            f"<p class='about-warning'>Load replaces <strong>{escape(loaded.preset.name)}</strong> for "
            f"{whom}; answers in progress are finished first.</p>"
        )
    return text
