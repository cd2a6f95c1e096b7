"""The settings of an answer as controls, each explained in a line. Knows Settings; nothing of engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

import specdec_core as sd
from specdec_core.settings import MAX_GAMMA

MAX_SEED = 2**53 - 1
"""Browsers hold whole numbers exactly up to here."""

DEFAULT_GAMMA = 4
"""Where the slider stands while the draft length is chosen automatically."""

FIELDS = (
    "gamma",
    "auto_gamma",
    "temperature",
    "max_new_tokens",
    "verification",
    "seed",
    "drafting",
    "top_p",
    "top_k",
    "min_p",
)
"""What the panel asks for, in the order in which `controls` returns the components."""


def controls() -> list[Any]:
    """The components, with the values of a Settings() until a preset brings its own."""
    start = dict(zip(FIELDS, panel_values(sd.Settings()), strict=True))
    common = common_controls(
        start,
        lowest_gamma=0,
        gamma_info="Tokens drafted in a round. 0: no drafts, plain decoding.",
        verification_info="How drafts are tested; both keep the target's distribution. With coupled, a seed "
        "gives the text that plain decoding gives with it.",
        seed_info="The same seed and settings repeat an answer.",
    )
    with gr.Row(elem_classes="settings-row"):
        drafting = gr.Radio(
            [("the drafter", "model"), ("repetition (n-gram)", "ngram")],
            value=start["drafting"],
            label="Who drafts",
            info="N-gram drafts what followed the same words earlier in the conversation.",
        )
        top_p = gr.Slider(
            0.01,
            1,
            value=start["top_p"],
            step=0.01,
            label="Top-p",
            info="Only the likeliest tokens that together reach this share. 1 is off.",
        )
    with gr.Row(elem_classes="settings-row"):
        top_k = gr.Number(
            value=start["top_k"],
            precision=0,
            minimum=0,
            label="Top-k",
            info="Only this many of the likeliest tokens. 0 is off.",
        )
        min_p = gr.Slider(
            0,
            0.99,
            value=start["min_p"],
            step=0.01,
            label="Min-p",
            info="Only tokens at least this likely beside the likeliest. 0 is off.",
        )
    return [*common, drafting, top_p, top_k, min_p]


def common_controls(
    start: dict[str, Any], *, lowest_gamma: int, gamma_info: str, verification_info: str, seed_info: str
) -> list[Any]:
    """The first six of FIELDS, which the chat and the comparison both ask for, each in its own words."""
    with gr.Row(elem_classes="settings-row"):
        gamma = gr.Slider(
            lowest_gamma,
            MAX_GAMMA,
            value=start["gamma"],
            step=1,
            label="Draft length (gamma)",
            info=gamma_info,
        )
        auto_gamma = gr.Checkbox(
            value=start["auto_gamma"],
            label="Choose the draft length as it goes",
            info="From measured times and acceptance; the slider is ignored then.",
        )
    with gr.Row(elem_classes="settings-row"):
        temperature = gr.Slider(
            0,
            2,
            value=start["temperature"],
            step=0.05,
            label="Temperature",
            info="0 always takes the likeliest token; more is more varied.",
        )
        longest = gr.Number(
            value=start["max_new_tokens"],
            precision=0,
            minimum=1,
            label="Longest answer",
            info="The most tokens that an answer may have.",
        )
    with gr.Row(elem_classes="settings-row"):
        verification = gr.Radio(
            ["rejection", "coupled"],
            value=start["verification"],
            label="Verification",
            info=verification_info,
        )
        seed = gr.Number(
            value=start["seed"],
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
            label="Seed",
            placeholder="empty: another one each time",
            info=seed_info,
        )
    return [gamma, auto_gamma, temperature, longest, verification, seed]


def settings_from(defaults: sd.Settings, values: tuple[Any, ...]) -> sd.Settings:
    """The panel's values over a preset's settings. Raises SettingsError, naming the field."""
    given = dict(zip(FIELDS, values, strict=True))
    for name in ("gamma", "max_new_tokens", "top_k", "seed"):
        if isinstance(given[name], float) and given[name].is_integer():
            given[name] = int(given[name])
    if given["top_k"] is None:
        given["top_k"] = 0
    if given.pop("auto_gamma"):
        given["gamma"] = "auto"
    return replace(defaults, **given)


def panel_values(settings: sd.Settings) -> list[Any]:
    """What the controls show for a preset's settings."""
    auto = settings.gamma == "auto"
    shown = {name: getattr(settings, name) for name in FIELDS if name != "auto_gamma"}
    shown |= {"gamma": DEFAULT_GAMMA if auto else settings.gamma, "auto_gamma": auto}
    return [shown[name] for name in FIELDS]
