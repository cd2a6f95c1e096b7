"""Load bar at the top of the page: preset, Load, Cancel and status. Components only; the page wires them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts.frames import LoadFrame
from ..state.holder import Loaded, has_gpu
from ..state.presets import Presets
from . import status

DEFAULT_PRESETS = ("smollm2-135m", "stories")
"""The page starts with the first of them that needs no download."""
SMALL_GB = 1.0
"""Smallest download of a pair that is slow on a CPU."""
FLOAT32_SHARE = 2
"""Size of weights in float32 (4 bytes) over their size on the Hub (2 bytes)."""


@dataclass(frozen=True)
class LoadBar:
    """Components of the bar."""

    preset: gr.Dropdown
    about: gr.HTML
    load: gr.Button
    cancel: gr.Button
    status: gr.HTML

    @property
    def parts(self) -> list[Any]:
        """Outputs of `updates`."""
        return [self.status, self.load, self.preset, self.cancel]


def load_bar(presets: Presets, fixed: str | None) -> LoadBar:
    """Create the bar inside the Blocks being built; `fixed` is the operator's preset, if any."""
    names = presets.names()
    start = fixed or default_preset(presets)
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
            state = gr.HTML(status.empty(), elem_id="status", apply_default_css=False)
    return LoadBar(preset, about, load, cancel, state)


def default_preset(presets: Presets) -> str | None:
    """Return the name of the preset that the page starts with; None if there are no presets."""
    usable = presets.usable
    here = (name for name in DEFAULT_PRESETS if name in usable and not usable[name].download_gb)
    return next(here, next(iter(presets.names()), None))


def updates(frame: LoadFrame, locked: bool) -> list[Any]:
    """Convert a frame to updates of LoadBar.parts; a `locked` bar takes no choice and no load."""
    if frame.status is None:
        return [gr.skip()] * 4
    variant = "secondary" if frame.loaded or frame.loading else "primary"
    button = gr.update(interactive=not frame.loading and not locked, variant=variant)
    cancel = gr.update(visible=True)
    if not frame.own:
        cancel = gr.update(visible=False, value="Cancel", interactive=True)
    return [frame.status, button, gr.update(interactive=not locked), cancel]


def cancelling(cancelled: bool) -> Any:
    """Return the update of Cancel after a press: a load may take seconds to end."""
    return gr.update(value="Cancelling", interactive=False) if cancelled else gr.skip()


def _label(name: str, presets: Presets) -> str:
    return f"{name} · {presets.usable[name].title if name in presets.usable else 'cannot be read'}"


def about(preset: sd.Preset | None, loaded: Loaded | None, others: int, locked: bool = False) -> str:
    """Return the description of a preset as HTML, with download, licence, and the pair that it would replace.
    `others` is the number of other open pages.
    """
    if preset is None:
        return ""
    needs = ""
    if preset.download_gb:
        needs += f" The first load downloads about {preset.download_gb:g} GB."
    if preset.gated:
        page = escape(preset.license_page or "")
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
        users = "everybody on this page"
        if others:
            users += f", {others} other{'s' if others > 1 else ''} just now"
        text += (
            f"<p class='about-warning'>Load replaces <strong>{escape(loaded.preset.name)}</strong> for "
            f"{users}; answers in progress are finished first.</p>"
        )
    return text
