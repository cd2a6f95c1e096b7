"""Figures of an answer: live from the rounds so far, then from the final stats.

Knows the trace; nothing of Gradio.
"""

from __future__ import annotations

from dataclasses import dataclass

import specdec_core as sd

FIGURES = (
    ("tokens/s", "Tokens of the answer per second of decoding; reading the prompt is not counted."),
    ("acceptance rate", "Of the drafts that the target tested, the share that it kept."),
    ("block efficiency", "Tokens that one round adds to the answer, the target's own token included."),
    ("time to first token", "From Send until the first token was there."),
)
"""Names and meanings of the figures, in the order of their values."""


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """Format a figure; "–" for None."""
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def seconds(value: float | None) -> str:
    """Format a time, in ms below one second; "–" for None."""
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def in_words(stats: sd.Stats) -> str:
    """Explain the counts of an answer to a newcomer; empty if no round was counted."""
    if not stats.rounds:
        return ""
    thought = ""
    if stats.thought_tokens:
        answered = stats.new_tokens - stats.thought_tokens
        thought = f" The thought took {sd.counted(stats.thought_tokens, 'token')}, the answer {answered}."
    if not stats.drafted:
        return f"Plain decoding: nothing was drafted, so each step of the target gave one token.{thought}"
    drafted = f"{sd.counted(stats.drafted, 'token')} {'was' if stats.drafted == 1 else 'were'} drafted"
    steps = "its one step" if stats.rounds == 1 else f"each of its {stats.rounds} steps"
    tokens = f"{stats.block_efficiency:.1f} tokens instead of one"
    kept = f"the target tested {stats.tested} and kept {stats.accepted}"
    return f"{drafted}; {kept}. So {steps} gave {tokens}.{thought}"


def _values(
    tokens_per_second: float | None,
    acceptance_rate: float | None,
    block_efficiency: float | None,
    first_token_s: float | None,
) -> list[str]:
    percent = None if acceptance_rate is None else 100 * acceptance_rate
    return [
        number(tokens_per_second),
        number(percent, 0, " %"),
        number(block_efficiency, 2),
        seconds(first_token_s),
    ]


def final_figures(stats: sd.Stats) -> list[str]:
    """Return the figures of a finished answer as text."""
    return _values(
        stats.tokens_per_second, stats.acceptance_rate, stats.block_efficiency, stats.time_to_first_token_s
    )


@dataclass
class LiveFigures:
    """Counts of the rounds so far; round 0 and rounds without a token are left out of them."""

    first_token_s: float | None = None
    rounds: int = 0
    emitted: int = 0
    tested: int = 0
    accepted: int = 0
    seconds: float = 0.0

    def add(self, rnd: sd.Round) -> None:
        """Count a round."""
        if rnd.index == 0 or not rnd.tokens:
            return
        self.rounds += 1
        self.emitted += len(rnd.emitted)
        self.tested += sum(token.kind in sd.TESTED_KINDS for token in rnd.tokens)
        self.accepted += sum(token.kind == "accepted" for token in rnd.tokens)
        self.seconds += rnd.seconds

    def figures(self) -> list[str]:
        """Return the figures so far as text."""
        return _values(
            self.emitted / self.seconds if self.seconds else None,
            self.accepted / self.tested if self.tested else None,
            self.emitted / self.rounds if self.rounds else None,
            self.first_token_s,
        )
