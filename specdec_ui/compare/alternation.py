"""Alternation of lanes in short stretches of decoding, so that a changing load slows all of them alike.

Knows rounds and their times; nothing of engines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import specdec_core as sd

from .speedup import Stretch, Timing, all_narrow, interval_of, paired_speedup

STRETCH_S = 0.03
"""Counted seconds of a stretch: short beside the changes of a machine's load."""
LEAST_ROUNDS = 3
"""Fewest counted rounds of a stretch."""
REPEAT_S = 4.0
"""Seconds from the start after which no lane answers again."""
_BLOCK = 4
"""Sweeps between two looks at the intervals: even, so that each lane was first as often as last."""

Begin = Callable[[], Generator[sd.Round]]
"""Begins an answer of a lane, the same one each time."""


@dataclass(frozen=True)
class LiveRound:
    """A round of a first answer, by the lane at that index, just decoded."""

    lane: int
    round: sd.Round


@dataclass(frozen=True)
class Sweep:
    """The end of a sweep: the tokens of each lane's first answer, and the first speedup with an interval.

    `share` is the part of the time for further answers that is spent; None while a first answer goes on.
    """

    tokens: tuple[int, ...]
    speedup: sd.Ratio | None
    share: float | None


@dataclass
class _Lane:
    """A lane's answers, the complete ones first, and the one in progress."""

    begin: Begin
    answers: list[list[sd.Round]] = field(default_factory=list)
    stretches: list[Stretch | None] = field(default_factory=list)
    complete: int = 0
    current: Generator[sd.Round] | None = None

    def next_round(self) -> sd.Round | None:
        """The next round of the answer in progress, which is begun if there is none; None at its end."""
        if self.current is None:
            self.current = self.begin()
            self.answers.append([])
        rnd = next(self.current, None)
        if rnd is not None:
            self.answers[-1].append(rnd)
        if rnd is None or rnd.finish_reason is not None:
            self.complete += rnd is None or rnd.finish_reason != "cancelled"
            self.close()
        return rnd

    def close(self) -> None:
        if self.current is not None:
            self.current.close()
            self.current = None

    @property
    def first_answer(self) -> list[sd.Round]:
        return self.answers[0] if self.answers else []

    @property
    def timing(self) -> Timing:
        return Timing(self.answers[: self.complete], self.stretches)

    @property
    def measurable(self) -> bool:
        """False once an answer had nothing to measure."""
        return not self.complete or bool(sd.counted_rounds(self.first_answer))


class Alternation:
    """Lanes that decode in turns, the baseline first.

    A sweep is a stretch of every lane, in reverse order in every other sweep (ABBA), which cancels a steady
    drift. The prefill is not counted, nor is the first round of a stretch, which finds another lane's data in
    the processor's caches. A lane that has ended answers again while a speedup is uncertain, so that the
    stretches of the others have pairs.
    """

    def __init__(
        self,
        lanes: Sequence[Begin],
        cancel: threading.Event,
        repeat_s: float = REPEAT_S,
        first: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes = [_Lane(begin) for begin in lanes]
        self._cancel = cancel
        self._repeat_s = repeat_s
        self._first = first
        self._clock = clock
        self._started = 0.0
        self.speedups: list[sd.Ratio | None] = [None] * (len(lanes) - 1)
        """Tokens per second of each lane but the baseline ÷ the baseline's; None without a pair."""

    @property
    def answered(self) -> bool:
        """True once every lane has answered."""
        return all(lane.complete for lane in self._lanes)

    @property
    def answers(self) -> list[list[sd.Round]]:
        """The first answer of each lane."""
        return [lane.first_answer for lane in self._lanes]

    def rounds(self) -> Generator[LiveRound | Sweep]:
        """Yield the rounds of the first answers as they are decoded, and the end of each sweep."""
        self._started = self._clock()
        count = len(self._lanes)
        order = [(at + self._first) % count for at in range(count)]
        sweeps = 0
        try:
            while not self._cancel.is_set() and (not self.answered or self._uncertain()):
                for at in order:
                    self._lanes[at].stretches.append((yield from self._stretch(at)))
                order.reverse()
                sweeps += 1
                if sweeps % _BLOCK == 0:
                    self._compute_speedups()
                yield self._progress()
            self._compute_speedups()
        finally:
            for lane in self._lanes:
                lane.close()

    def _stretch(self, at: int) -> Generator[LiveRound, None, Stretch | None]:
        """Decode a stretch and return its counted rounds; None if the lane ended before it was full."""
        lane, counted, switched = self._lanes[at], [], True
        while len(counted) < LEAST_ROUNDS or sum(rnd.seconds for rnd in counted) < STRETCH_S:
            ended = lane.current is None and lane.complete
            if self._cancel.is_set() or (ended and not self._uncertain()):
                return None
            rnd = lane.next_round()
            if rnd is None:
                continue
            if len(lane.answers) == 1:
                yield LiveRound(at, rnd)
            if sd.counted_rounds([rnd]):
                if not switched:
                    counted.append(rnd)
                switched = False
        return counted

    def _uncertain(self) -> bool:
        """True while a speedup has no narrow interval, and further answers may give it one."""
        if self._clock() - self._started >= self._repeat_s:
            return False
        return all(lane.measurable for lane in self._lanes) and not all_narrow(self.speedups)

    def _compute_speedups(self) -> None:
        baseline, *others = [lane.timing for lane in self._lanes]
        self.speedups = [paired_speedup(baseline, other) for other in others]

    def _progress(self) -> Sweep:
        tokens = tuple(len(sd.emitted_ids(answer)) for answer in self.answers)
        share = None
        if self.answered and self._repeat_s:
            share = min((self._clock() - self._started) / self._repeat_s, 1.0)
        return Sweep(tokens, interval_of(self.speedups[0]), share)
