"""Lanes on a made-up machine, whose clock moves only by their work and whose load changes meanwhile."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace

import specdec_core as sd

PIECE_S = 0.001
"""Work is done in pieces this long, between which the load may change."""


@dataclass
class Machine:
    """`load` says how many times as long work takes, by the time. `begun` has a lane's name for each answer
    begun, `closed` for each generator that ended or was closed.
    """

    load: Callable[[float], float] = lambda now: 1.0
    now: float = 0.0
    begun: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def work(self, seconds: float) -> float:
        """Do the work; return the time that it took."""
        before = self.now
        while seconds > 0:
            piece = min(PIECE_S, seconds)
            self.now += piece * self.load(self.now)
            seconds -= piece
        return self.now - before


@dataclass(frozen=True)
class Step:
    """A round of `tokens`, of which all but one were drafts, that takes `seconds` without load."""

    tokens: int
    seconds: float
    drafts: int = 0


def lane(machine: Machine, name: str, steps: Sequence[Step], finish: sd.FinishReason = "eos"):
    """Return what begins an answer of these steps after a prefill."""

    def begin() -> Generator[sd.Round]:
        machine.begun.append(name)
        try:
            for index, step in enumerate([Step(1, 0.02), *steps]):
                rnd = _round(index, step, machine.work(step.seconds))
                yield replace(rnd, finish_reason=finish) if index == len(steps) else rnd
        finally:
            machine.closed.append(name)

    return begin


def _round(index: int, step: Step, seconds: float) -> sd.Round:
    tokens = [sd.Token(1, "x", "accepted")] * (step.tokens - 1) + [sd.Token(2, "x", "plain")]
    tokens += [sd.Token(3, "x", "untested")] * (step.drafts - step.tokens + 1)
    return sd.Round(index, 0, step.drafts, "fixed", tokens, "x", 0.0, seconds, 0.0)


PLAIN = [Step(1, 0.004)] * 140
"""0.56 s of plain decoding."""
DRAFTED = [Step(tokens, 0.008, 4) for tokens in (2, 3, 3, 3, 3)] * 10
"""The same number of tokens, 1.4 times as fast."""
