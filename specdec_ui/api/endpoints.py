"""Public endpoints: /load_preset, /chat, /compare and /check_pair. Values are plain JSON.

Each client has a conversation of its own. Errors are the engine's, raised as gr.Error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import gradio as gr

import specdec_core as sd

from ..loading import handlers as load_handlers
from ..parts.messages import checked_message
from ..state.holder import EngineHolder, Loaded, import_engine
from ..state.presets import Presets
from ..state.visitors import Visitor, Visitors
from .client_errors import errors_for_clients
from .compare import add_compare_endpoint
from .labels import add_endpoint
from .settings_parameters import settings_of, with_settings


def add_endpoints(
    page: gr.Blocks,
    holder: EngineHolder,
    visitors: Visitors,
    presets: Presets,
    locked: Callable[[], bool],
) -> None:
    """Add all endpoints to the page being built."""
    add_load_endpoint(page, holder, visitors, presets, locked)
    add_chat_endpoint(page, holder, visitors)
    add_compare_endpoint(page, holder, visitors)
    add_endpoint(page, check_pair, "check_pair", "Report")


def add_load_endpoint(
    page: gr.Blocks,
    holder: EngineHolder,
    visitors: Visitors,
    presets: Presets,
    locked: Callable[[], bool],
) -> None:
    """Add /load_preset to the page being built."""

    def load_preset(preset: str, request: gr.Request) -> Iterator[dict[str, Any]]:
        """Loads a preset for everybody. Yields state, message, fraction and info until state is ready."""
        visitor = visitors.of(request.session_hash)
        with errors_for_clients():
            yield from load_steps(visitor, holder, presets, preset, locked())

    add_endpoint(page, load_preset, "load_preset", "Progress, then the pair")


def add_chat_endpoint(page: gr.Blocks, holder: EngineHolder, visitors: Visitors) -> None:
    """Add /chat to the page being built."""

    def chat(
        message: str, request: gr.Request, settings: dict[str, Any], new_conversation: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Sends a message in the client's own conversation; settings left out are the preset's.

        Yields, for each round, {"text": the answer so far, "thought": what the model thought before it so
        far, "round", "finish_reason", "stats"}; the last has a finish_reason and stats.
        """
        visitor = visitors.of(request.session_hash)
        with errors_for_clients():
            yield from chat_rounds(visitor, holder, message, settings, new_conversation)

    add_endpoint(page, with_settings(chat), "chat", "Answer so far")


def check_pair(
    target: str,
    drafter: str,
    target_revision: str | None = None,
    drafter_revision: str | None = None,
    vocab_padding: sd.VocabPadding = "refuse",
) -> dict[str, Any]:
    """Says whether two models (Hub ids or folders of the server) may be paired; reads no weights.

    A revision is a branch, tag or commit of a Hub id; `vocab_padding` is refuse or trim.
    """
    with errors_for_clients():
        import_engine()
        return report_values(
            sd.check_pair(
                target,
                drafter,
                target_revision=target_revision,
                drafter_revision=drafter_revision,
                vocab_padding=vocab_padding,
            )
        )


def load_steps(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool
) -> Iterator[dict[str, Any]]:
    """Yield the values of /load_preset. Raises what loading raises."""
    for step in load_handlers.load_steps(visitor, holder, presets, name, locked):
        if isinstance(step, Loaded):
            info = asdict(step.engine.info)
            yield {"state": "ready", "message": f"{name} is loaded", "fraction": 1.0, "info": info}
        else:
            yield {"state": "loading", "message": step.message, "fraction": step.fraction, "info": None}


def chat_rounds(
    visitor: Visitor, holder: EngineHolder, message: str, changes: dict[str, Any], new_conversation: bool
) -> Iterator[dict[str, Any]]:
    """Yield the values of /chat; `changes` replace preset settings. Raises what the engine raises."""
    text = checked_message(message)
    settings = settings_of(holder.require(), changes)
    if new_conversation:
        with visitor.turn():
            visitor.conversation.clear()
    answer = thought = ""
    with closing(visitor.ask(text, settings, holder)) as steps:
        for step in steps:
            if not isinstance(step, sd.Round):
                continue
            answer += step.text
            thought += step.thought
            values = step.to_dict()
            stats = values.pop("stats")
            yield {
                "text": answer,
                "thought": thought,
                "finish_reason": values.pop("finish_reason"),
                "stats": stats,
                "round": values,
            }


def report_values(report: sd.PairReport) -> dict[str, Any]:
    """Return the gate's report as JSON values."""
    return report.to_dict() | {"text": str(report)}
