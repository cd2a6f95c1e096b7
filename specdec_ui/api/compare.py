"""Public endpoint /compare: one prompt with and without drafts, as plain JSON values."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

import specdec_core as sd

from ..compare import comparison, words as compare_words
from ..compare.comparison import Comparison, LaneAnswer
from ..compare.handlers import FRAME_S, measure
from ..compare.lanes import LaneChoice, available_peers
from ..compare.progress import Progress, progress_text
from ..parts.messages import checked_message
from ..state.holder import EngineHolder
from ..state.visitors import Visitor, Visitors
from .client_errors import errors_for_clients
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
        both: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Answers one prompt by plain and by speculative decoding, and compares them.

        Settings left out are the preset's; `ngram` adds a lane of n-gram drafting, `both` one of n-gram
        drafting where the text repeats and the drafter's elsewhere (a target alone has the first alone),
        `peers` those of transformers' own generate, alone and assisted by the drafter, and of llama.cpp where
        its package is installed and the target has a GGUF file. With verification "coupled" (or temperature
        0) our own texts are the same, up to rounding. The lanes decode in turns, a few rounds each, so that a
        changing load slows all alike ("alternated"; answers of other code and those on ZeroGPU are whole
        ones), and answer again for up to four seconds until the speedup is within 5 %.

        Yields {"state": "measuring", "message", "result": None} a few times a second, then {"state": "done",
        "message": the outcome in words, "result": {"alternated", "gamma", "seed", "verification", "left_out",
        "lanes"}}. A lane has name (plain, model, ngram, both, generate, assisted, llama_cpp), and of its
        first answer text, thought, token_ids, finish_reason, stats, seconds of decoding, same_text,
        first_divergence, margin, predicted_speedup_by_gamma. Its speedup is the median of pairs; speedup_low
        and speedup_high are the 95 % confidence interval over that number of pairs, null for fewer than six.
        """
        visitor = visitors.of(request.session_hash)
        own = [name for name, wanted in (("ngram", ngram), ("both", both)) if wanted]
        choice = LaneChoice.named([*own, *(available_peers() if peers else ())])
        with errors_for_clients():
            yield from compare_steps(visitor, holder, prompt, settings, choice)

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
            elif isinstance(step, Progress) and time.monotonic() >= due:
                due = time.monotonic() + FRAME_S
                yield {"state": "measuring", "message": progress_text(step), "result": None}


def _in_words(step: Comparison) -> str:
    sentences = [
        f"{lane.title}: {_verdict(step, lane)}. "
        f"{compare_words.explanation(step, lane)} {compare_words.sameness(step, lane)}"
        for lane in step.other_lanes
    ]
    return "\n".join([*sentences, *step.left_out])


def _verdict(step: Comparison, lane: LaneAnswer) -> str:
    verdict = compare_words.verdict(step.speedup(lane), step.outcome(lane))
    return f"{verdict} {compare_words.interval(step.interval(lane))}".rstrip()
