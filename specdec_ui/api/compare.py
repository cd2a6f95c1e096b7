"""Public endpoint /compare: one prompt with and without drafts, as plain JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

import specdec_core as sd

from ..compare import comparison, words as compare_words
from ..compare.comparison import PEERS, Comparison
from ..compare.handlers import FRAME_S, measure, progress_text
from ..compare.run import LaneChoice, LaneProgress
from ..parts.messages import checked_message
from ..state.holder import EngineHolder
from ..state.visitors import Visitor, Visitors
from .labels import add_endpoint
from .settings_parameters import settings_of, with_settings

SETTINGS = [name for name in sd.SETTINGS if name != "drafting"]
"""Parameters of /compare: each lane has its own way of drafting."""


def add_compare_endpoint(page: gr.Blocks, holder: EngineHolder, visitors: Visitors) -> None:
    """Add the endpoint to the page being built."""

    def compare(
        prompt: str,
        request: gr.Request,
        settings: dict[str, Any],
        ngram: bool = False,
        peers: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Answers one prompt by plain and by speculative decoding, one after the other, and compares them.

        Settings left out are the preset's; `ngram` adds a lane of n-gram drafting, `peers` those of
        transformers' own generate, alone and assisted by the drafter. With verification "coupled" (or
        temperature 0) our own texts are the same, up to rounding.

        Yields {"state": "measuring", "message", "result": None} a few times a second, then {"state": "done",
        "message": the outcome in words, "result": {"gamma", "seed", "verification", "left_out", "lanes"}}; a
        lane has name (plain, model, ngram, generate, assisted), text, token_ids, finish_reason, stats,
        seconds of decoding, speedup, same_text, first_divergence, margin, predicted_speedup_by_gamma.
        """
        visitor = visitors.of(request.session_hash)
        choice = LaneChoice(ngram, PEERS if peers else ())
        try:
            yield from compare_steps(visitor, holder, prompt, settings, choice)
        except sd.SpecDecError as error:
            raise gr.Error(str(error), print_exception=False) from error

    with_defaults = with_settings(compare, SETTINGS, {"verification": "coupled"})
    add_endpoint(page, with_defaults, "compare", "Progress, then the comparison")


def compare_steps(
    visitor: Visitor, holder: EngineHolder, prompt: str, changes: dict[str, Any], choice: LaneChoice
) -> Iterator[dict[str, Any]]:
    """Yield the values of /compare; `changes` replace preset settings. Raises what the engine raises."""
    text = checked_message(prompt)
    settings = settings_of(holder.require(), changes)
    due = 0.0
    with closing(measure(visitor, holder, [text], settings, choice)) as steps:
        for step in steps:
            if isinstance(step, Comparison):
                yield {"state": "done", "message": _in_words(step), "result": comparison.to_json(step)}
            elif isinstance(step, str | LaneProgress) and time.monotonic() >= due:
                due = time.monotonic() + FRAME_S
                yield {"state": "measuring", "message": progress_text(step), "result": None}


def _in_words(step: Comparison) -> str:
    sentences = [
        f"{lane.title}: {compare_words.verdict(step.speedup(lane))}. "
        f"{compare_words.explanation(step, lane)} {compare_words.sameness(step, lane)}"
        for lane in step.other_lanes
    ]
    return "\n".join([*sentences, *step.left_out])
