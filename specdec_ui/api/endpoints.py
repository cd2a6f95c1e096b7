"""The public endpoints: /load_preset, /chat, /compare and /check_pair. Each speaks in plain JSON values.

A client's conversation is its own, as a page's is; errors are the engine's, raised as gr.Error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

import gradio as gr

import specdec_core as sd

from ..loading import handlers as load_handlers
from ..parts.messages import checked_message
from ..state.holder import EngineHolder, Loaded, import_engine
from ..state.presets import Presets
from ..state.visitors import Visitor, Visitors
from .compare import add_compare_endpoint


def add_endpoints(
    holder: EngineHolder, visitors: Visitors, presets: Presets, locked: Callable[[], bool]
) -> None:
    """Adds the endpoints to the Blocks being built."""

    def load_preset(preset: str, request: gr.Request) -> Iterator[dict[str, Any]]:
        """Loads a preset for everybody. Yields state, message, fraction and info until state is ready."""
        visitor = visitors.of(request.session_hash)
        yield from _raising(load_steps(visitor, holder, presets, preset, locked()))

    def chat(
        message: str,
        request: gr.Request,
        gamma: int | str | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        drafting: str | None = None,
        verification: str | None = None,
        seed: int | None = None,
        new_conversation: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Sends a message in the client's own conversation; settings left out are the preset's.

        `gamma` is a number or "auto"; `drafting` is model or ngram; `verification` is rejection or coupled.

        Yields, for each round, {"text": the answer so far, "round", "finish_reason", "stats"}; the last has a
        finish_reason and stats.
        """
        given = {
            "gamma": gamma,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "drafting": drafting,
            "verification": verification,
            "seed": seed,
        }
        visitor = visitors.of(request.session_hash)
        yield from _raising(chat_rounds(visitor, holder, message, given, new_conversation))

    def check_pair(
        target: str,
        drafter: str,
        target_revision: str | None = None,
        drafter_revision: str | None = None,
        vocab_padding: str = "refuse",
    ) -> dict[str, Any]:
        """Says whether two models (Hub ids or folders of the server) may be paired; reads no weights.

        A revision is a branch, tag or commit of a Hub id; `vocab_padding` is refuse or trim.
        """
        try:
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
        except sd.SpecDecError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(load_preset, api_name="load_preset")
    gr.api(chat, api_name="chat")
    add_compare_endpoint(holder, visitors)
    gr.api(check_pair, api_name="check_pair")


def load_steps(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool
) -> Iterator[dict[str, Any]]:
    """What /load_preset yields; raises what loading raises."""
    for step in load_handlers.load_steps(visitor, holder, presets, name, locked):
        if isinstance(step, Loaded):
            info = asdict(step.engine.info)
            yield {"state": "ready", "message": f"{name} is loaded", "fraction": 1.0, "info": info}
        else:
            yield {"state": "loading", "message": step[0], "fraction": step[1], "info": None}


def chat_rounds(
    visitor: Visitor, holder: EngineHolder, message: str, given: dict[str, Any], new_conversation: bool
) -> Iterator[dict[str, Any]]:
    """What /chat yields; raises what the engine raises."""
    text = checked_message(message)
    defaults = holder.require().engine.default_settings
    settings = replace(defaults, **{name: value for name, value in given.items() if value is not None})
    if new_conversation:
        with visitor.turn():
            visitor.conversation.clear()
    answer = ""
    with closing(visitor.ask(text, settings, holder)) as rounds:
        for rnd in rounds:
            if rnd is None:
                continue
            answer += rnd.text
            values = rnd.to_dict()
            stats = values.pop("stats")
            yield {
                "text": answer,
                "finish_reason": values.pop("finish_reason"),
                "stats": stats,
                "round": values,
            }


def report_values(report: Any) -> dict[str, Any]:
    """The gate's report as JSON values."""
    return report.to_dict() | {"text": str(report)}


def _raising(steps: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same steps; errors that are fit to be shown reach the client as they are."""
    try:
        yield from steps
    except sd.SpecDecError as error:
        raise gr.Error(str(error), print_exception=False) from error
