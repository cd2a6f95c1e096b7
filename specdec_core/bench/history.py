"""Time to the first token of a conversation's second turn, with and without the session's caches.

With caches only the new message is prefilled, so the time should not grow with the conversation.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine import Engine
from ..settings import Settings
from ..text.prompting import Prompt
from .prompts import as_prompt, has_template, user_turn

HISTORIES = (100, 400, 1600)
_FIRST_ANSWER = 8
_FILLER = "Once upon a time there was a little dog who lived in a big house near the sea. "
_FOLLOW_UP = "And what did the dog do then?"


@dataclass(frozen=True, slots=True)
class SecondTurn:
    """Median times to the first token after `history_tokens`, with the session's caches and without them.

    `new_tokens` of the prompt were not in the caches.
    """

    history_tokens: int
    new_tokens: int
    cached_s: float
    uncached_s: float


@dataclass(frozen=True, slots=True)
class HistoryReport:
    """Second turns by length of the conversation; lengths that exceed the context are `skipped`."""

    repetitions: int
    turns: list[SecondTurn]
    skipped: list[int]
    context_length: int


def history(engine: Engine, lengths: Sequence[int], repetitions: int) -> HistoryReport:
    """Measure the time to first token of a second turn, after first turns of these lengths in tokens.

    All lengths take turns within a repetition. A first repetition warms up and is not counted.
    """
    room = engine.pair.context_length - 64
    fitting = [length for length in lengths if length <= room]
    turns: dict[int, list[SecondTurn]] = {length: [] for length in fitting}
    for repetition in range(-1, repetitions):
        for length in fitting:
            turn = _second_turn(engine, length)
            if repetition >= 0:
                turns[length].append(turn)
    return HistoryReport(
        repetitions=repetitions,
        turns=[_medians(samples) for samples in turns.values()],
        skipped=[length for length in lengths if length > room],
        context_length=engine.pair.context_length,
    )


def history_lines(report: HistoryReport) -> list[str]:
    """Return the report as a table of text lines, times in milliseconds."""
    lines = [
        f"time to the first token of a second turn, median of {report.repetitions}",
        f"{'history':>8}  {'new':>5}  {'with caches':>11}  {'without':>9}",
        f"{'tokens':>8}  {'':>5}  {'ms':>11}  {'ms':>9}",
    ]
    for turn in report.turns:
        lines.append(
            f"{turn.history_tokens:>8}  {turn.new_tokens:>5}  {1000 * turn.cached_s:>11.1f}  "
            f"{1000 * turn.uncached_s:>9.1f}"
        )
    if report.skipped:
        skipped = ", ".join(map(str, report.skipped))
        lines.append(f"skipped, longer than the context of {report.context_length}: {skipped}")
    return lines


def _second_turn(engine: Engine, length: int) -> SecondTurn:
    settings = Settings(max_new_tokens=_FIRST_ANSWER, temperature=0, gamma=0)
    session = engine.session()
    question = _question(engine, length - _FIRST_ANSWER)
    first = as_prompt(engine, question)
    answer = engine.generate(first, settings, session).text
    follow_up = _follow_up(engine, question, answer)
    cached = engine.generate(follow_up, settings, session).stats
    uncached = engine.generate(follow_up, settings).stats
    return SecondTurn(
        history_tokens=cached.cached_prompt_tokens,
        new_tokens=cached.prompt_tokens - cached.cached_prompt_tokens,
        cached_s=cached.time_to_first_token_s,
        uncached_s=uncached.time_to_first_token_s,
    )


def _question(engine: Engine, tokens: int) -> str:
    """The longest text whose prompt has at most `tokens` tokens, template included; at least one word."""
    words = (_FILLER * (tokens // 8 + 1)).split()
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        ids = engine.pair.prompter.encode(as_prompt(engine, " ".join(words[:middle])))
        low, high = (middle, high) if len(ids) <= tokens else (low, middle - 1)
    return " ".join(words[:low])


def _follow_up(engine: Engine, question: str, answer: str) -> Prompt:
    if not has_template(engine):
        return f"{question}{answer} {_FOLLOW_UP}"
    return [*user_turn(question), {"role": "assistant", "content": answer or "…"}, *user_turn(_FOLLOW_UP)]


def _medians(turns: Sequence[SecondTurn]) -> SecondTurn:
    return SecondTurn(
        history_tokens=turns[0].history_tokens,
        new_tokens=turns[0].new_tokens,
        cached_s=statistics.median(turn.cached_s for turn in turns),
        uncached_s=statistics.median(turn.uncached_s for turn in turns),
    )
