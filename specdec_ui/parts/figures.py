"""The line of figures under an answer: live from the rounds so far, then from the final stats.

Knows the trace; nothing of Gradio.
"""

from __future__ import annotations

from dataclasses import dataclass

from specdec_core.trace import TESTED_KINDS, Round, Stats

FIGURES = (
    ("tokens/s", "Tokens of the answer per second of decoding; reading the prompt is not counted."),
    ("acceptance rate", "Of the drafts that the target tested, the share that it kept."),
    ("block efficiency", "Tokens that one round adds to the answer, the target's own token included."),
    ("time to first token", "From Send until the first token was there."),
)
"""Names of the figures and what they mean, in the order in which the functions below give the values."""


def number(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A figure as text; "–" where nothing was counted."""
    return "–" if value is None else f"{value:.{digits}f}{unit}"


def seconds(value: float | None) -> str:
    """A time as text, in ms below one second."""
    if value is None:
        return "–"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def in_words(stats: Stats) -> str:
    """What the figures say, for a person who has never seen them."""
    if not stats.rounds:
        return ""
    if not stats.drafted:
        return "Plain decoding: nothing was drafted, so each step of the target gave one token."
    return (
        f"{stats.drafted} tokens were drafted; the target tested {stats.tested} of them and kept "
        f"{stats.accepted}. So each of its {stats.rounds} steps gave {stats.block_efficiency:.1f} tokens "
        "instead of one."
    )


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


def final_figures(stats: Stats) -> list[str]:
    """The figures of a finished answer."""
    return _values(
        stats.tokens_per_second, stats.acceptance_rate, stats.block_efficiency, stats.time_to_first_token_s
    )


@dataclass
class LiveFigures:
    """The same figures while rounds come in; round 0 and rounds without a token count in no rate."""

    first_token_s: float | None = None
    rounds: int = 0
    emitted: int = 0
    tested: int = 0
    accepted: int = 0
    seconds: float = 0.0

    def add(self, rnd: Round) -> None:
        if rnd.index == 0 or not rnd.tokens:
            return
        self.rounds += 1
        self.emitted += len(rnd.emitted)
        self.tested += sum(token.kind in TESTED_KINDS for token in rnd.tokens)
        self.accepted += sum(token.kind == "accepted" for token in rnd.tokens)
        self.seconds += rnd.seconds

    def figures(self) -> list[str]:
        return _values(
            self.emitted / self.seconds if self.seconds else None,
            self.accepted / self.tested if self.tested else None,
            self.emitted / self.rounds if self.rounds else None,
            self.first_token_s,
        )
