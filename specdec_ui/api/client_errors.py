"""Errors of the engine for clients of the endpoints. Knows no endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

import specdec_core as sd


@contextmanager
def errors_for_clients() -> Iterator[None]:
    """Raise the engine's errors as gr.Error, whose message reaches the client."""
    try:
        yield
    except sd.SpecDecError as error:
        raise gr.Error(str(error), print_exception=False) from error
