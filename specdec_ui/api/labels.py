"""Public endpoints with labels for their parameters and their result; Gradio's own are "1st", "2nd", …."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import api

import specdec_core as sd


def add_endpoint(page: gr.Blocks, function: Callable[..., Any], name: str, result: str) -> None:
    """Add `function` to the page being built as a public endpoint; `result` is its result's label."""
    endpoint = api(function, api_name=name)
    parameters = inspect.signature(function, eval_str=True).parameters.values()
    labels = [_label(parameter.name) for parameter in parameters if parameter.annotation is not gr.Request]
    ids = [*endpoint["inputs"], *endpoint["outputs"]]
    for component, label in zip(ids, [*labels, result], strict=True):
        page.blocks[component].label = label  # pyright: ignore[reportAttributeAccessIssue] -- a component


def _label(parameter: str) -> str:
    if parameter in sd.SETTINGS:
        return sd.SETTINGS[parameter].label
    return parameter.replace("_", " ").capitalize()
