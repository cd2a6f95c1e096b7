"""The public endpoint /compare: one prompt with and without drafts, as plain JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import gradio as gr

import specdec_core as sd

from ..compare import comparison, words as compare_words
from ..compare.comparison import PEERS, Comparison
from ..compare.handlers import FRAME_S, doing, measured
from ..compare.run import Asked
from ..parts.messages import checked_message
from ..state.holder import EngineHolder
from ..state.visitors import Visitor, Visitors


def add_compare_endpoint(holder: EngineHolder, visitors: Visitors) -> None:
    """Adds the endpoint to the Blocks being built."""

    def compare(
        prompt: str,
        request: gr.Request,
        gamma: int | str | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        min_p: float | None = None,
        verification: str = "coupled",
        seed: int | None = None,
        ngram: bool = False,
        peers: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Answers one prompt by plain and by speculative decoding, one after the other, and compares them.

        Settings left out are the preset's; `gamma` is a number or "auto"; `ngram` adds a lane of n-gram
        drafting, `peers` those of transformers' own generate, alone and assisted by the drafter. With
        verification "coupled" (or temperature 0) our own texts are the same, up to rounding.

        Yields {"state": "measuring", "message", "result": None} a few times a second, then {"state": "done",
        "message": the outcome in words, "result": {"gamma", "seed", "verification", "left_out", "lanes"}}; a
        lane has name (plain, model, ngram, generate, assisted), text, token_ids, finish_reason, stats,
        seconds of decoding, speedup, same_text, first_divergence, margin, predicted_speedup_by_gamma.
        """
        given = {
            "gamma": gamma,
            "temperature": temperature,
            "max_new_tokens": max_new_tokens,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "verification": verification,
            "seed": seed,
        }
        visitor = visitors.of(request.session_hash)
        try:
            yield from compare_steps(visitor, holder, prompt, given, Asked(ngram, PEERS if peers else ()))
        except sd.SpecDecError as error:
            raise gr.Error(str(error), print_exception=False) from error

    gr.api(compare, api_name="compare")


def compare_steps(
    visitor: Visitor, holder: EngineHolder, prompt: str, given: dict[str, Any], asked: Asked
) -> Iterator[dict[str, Any]]:
    """What /compare yields; raises what the engine raises."""
    text = checked_message(prompt)
    defaults = holder.require().engine.default_settings
    settings = replace(defaults, **{name: value for name, value in given.items() if value is not None})
    due = 0.0
    with closing(measured(visitor, holder, [text], settings, asked)) as steps:
        for step in steps:
            if isinstance(step, Comparison):
                yield {"state": "done", "message": _in_words(step), "result": comparison.values(step)}
            elif time.monotonic() >= due:
                due = time.monotonic() + FRAME_S
                yield {"state": "measuring", "message": doing(step), "result": None}


def _in_words(step: Comparison) -> str:
    said = [
        f"{lane.title}: {compare_words.verdict(step.speedup(lane))}. "
        f"{compare_words.explanation(step, lane)} {compare_words.sameness(step, lane)}"
        for lane in step.others
    ]
    return "\n".join([*said, *step.left_out])
