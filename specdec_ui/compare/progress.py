"""Progress of a comparison in words and as a bar. Knows its steps; nothing of engines or components."""

from __future__ import annotations

from html import escape

import specdec_core as sd

from . import words as compare_words
from .alternation import Sweep
from .comparison import TITLES
from .run import LaneProgress

Progress = str | LaneProgress | Sweep
"""A position in the queue in words, or a step that is shown as progress."""


def queue_position(ahead: int) -> str:
    """Return the position in the queue of comparisons in words."""
    others = "another comparison" if ahead == 1 else f"{ahead} other comparisons"
    return (
        f"Number {ahead} in line: waiting for {others} to end, so that none slows another down. "
        "Cancel leaves the line."
    )


def progress_html(step: Progress, prompts_done: int = 0, prompts: int = 1) -> str:
    """Return a step in words over a bar."""
    share = _share(step)
    if prompts > 1:
        share = (prompts_done + (share or 0.0)) / prompts
    return progress_bar(progress_text(step, prompts_done, prompts), share)


def _share(step: Progress) -> float | None:
    """The part of one prompt's comparison that is done, as far as it is known."""
    if isinstance(step, LaneProgress):
        return (step.done + min(step.new_tokens / step.max_new_tokens, 1)) / step.lanes
    return step.share if isinstance(step, Sweep) else None


def progress_text(step: Progress, prompts_done: int = 0, prompts: int = 1) -> str:
    """Return a step in words."""
    if isinstance(step, str):
        return step
    prefix = f"Prompt {prompts_done + 1} of {prompts}. " if prompts > 1 else ""
    if isinstance(step, Sweep):
        return prefix + _sweep_text(step)
    if step.again:
        prefix += "Answering again, for a more certain speedup. "
    if not step.new_tokens:
        return f"{prefix}{TITLES[step.name]}: warming up and reading the prompt."
    return f"{prefix}{TITLES[step.name]}: {sd.counted(step.new_tokens, 'token')} so far."


def _sweep_text(step: Sweep) -> str:
    if step.share is None:
        return f"In turns: {' and '.join(map(str, step.tokens))} tokens so far."
    if step.speedup is None:
        return "Answering again, for a more certain speedup."
    interval = compare_words.interval(step.speedup)
    return f"Answering again, for a more certain speedup: {step.speedup.median:.2f}× {interval} so far."


def progress_bar(text: str, share: float | None) -> str:
    """Return text over a bar; one that only moves, if the share that is done is not known."""
    value = "" if share is None else f' value="{share:.3f}"'
    return (
        f'<div class="compare-progress" role="status"><p>{escape(text)}</p>'
        f'<progress max="1"{value} aria-label="Comparison"></progress></div>'
    )
