"""Measurement of bare forwards, without sampling: the drafter's, and the target's by number of rows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..onnx_runtime.logits_function import TorchFree
from ..pair import LoadedPair
from ..runners import RewindableCache, Runner, Then
from ..runners.base import Clock

ANY_ID = 5
"""The token id that measurements feed; the time of a forward does not depend on it."""

_FEWEST_REPETITIONS = 3
_TYPICAL_DRAFTS = 4


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Median seconds of bare forwards in the middle of an answer, without sampling."""

    draft_s: Sequence[float]
    """Of the first, second, … drafter step after a forward of the target; empty without a drafter. On a CPU
    the first ones find the target's weights in the cache instead of their own.
    """
    target_s: dict[int, float]
    """By number of rows."""

    @property
    def drafter_s(self) -> float:
        """A drafter step, the mean of the first four after a forward of the target; 0 without a drafter."""
        return self.drafting_s(_TYPICAL_DRAFTS) / _TYPICAL_DRAFTS

    def drafting_s(self, gamma: int) -> float:
        """Return the time of `gamma` drafter steps in a row. Steps past the measured are like the last."""
        if not self.draft_s:
            return 0.0
        return sum(self.draft_s[:gamma]) + self.draft_s[-1] * max(0, gamma - len(self.draft_s))

    @property
    def c(self) -> float:
        """Cost coefficient: a drafter step in one-row target steps."""
        return self.drafter_s / self.target_s[1]

    def c_of(self, gamma: int) -> float:
        """Return the cost coefficient in rounds of `gamma` drafts."""
        return self.drafting_s(gamma) / gamma / self.target_s[1]

    def v(self, rows: int) -> float:
        """Return the verify cost: a target forward over `rows` in one-row target steps."""
        return self.target_s[rows] / self.target_s[1]


@dataclass(frozen=True, slots=True)
class _CachedRunner:
    """A runner with a cache of its own."""

    runner: Runner
    cache: RewindableCache

    @classmethod
    def of(cls, runner: Runner) -> _CachedRunner:
        """Return the runner with an empty cache."""
        return cls(runner, runner.new_cache())


@dataclass(frozen=True, slots=True)
class _Marks:
    """The points of a clock before and after a forward."""

    clock: Clock
    start: Any
    end: Any

    @property
    def seconds(self) -> float:
        """Seconds between them; waits for the device."""
        return self.clock.seconds(self.start, self.end)


@dataclass(frozen=True, slots=True)
class _Same(TorchFree):
    """The same ids whatever the logits."""

    ids: Tensor

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the ids."""
        return self.ids


class StepTimer:
    """Timer of bare forwards after `context` tokens.

    Times the drafter's over one row and the target's over each number in `rows`. `measure` may be called many
    times, to spread the repetitions over a longer measurement.
    """

    def __init__(self, pair: LoadedPair, context: int, rows: Sequence[int]) -> None:
        self.context = context
        self._target = _CachedRunner.of(pair.target)
        self._drafter = None if pair.drafter is None else _CachedRunner.of(pair.drafter)
        self._target_s: dict[int, list[float]] = {count: [] for count in sorted({1, *rows})}
        self._draft_s: list[list[float]] = [[] for _ in range(max(self._target_s) - 1)]

    @torch.inference_mode()
    def measure(self, repetitions: int) -> None:
        """Time every kind of forward `repetitions` times.

        The kinds take turns within a repetition, so that all meet the same load on the machine. As in a
        round, a target forward over gamma + 1 rows comes after gamma drafter steps, which are timed by their
        place in the row: the later ones find their weights in the CPU cache. On a GPU a repetition is queued
        as a whole and its marks are read afterwards: it computes without waiting for a launch, as it does in
        a round.
        """
        self._prefill(self._target)
        if self._drafter is not None:
            self._prefill(self._drafter)
        for _ in range(repetitions):
            self._measure_once()

    def _measure_once(self) -> None:
        drafts: list[tuple[int, _Marks]] = []
        target: dict[int, _Marks] = {}
        for count in self._target_s:
            if self._drafter is not None:
                drafts += enumerate(self._draft(self._drafter, count - 1))
            if count == 1:
                # Plain decoding runs no drafter between, which leaves the target's weights in the cache.
                self._forward(self._target, 1)
            target[count] = self._forward(self._target, count)
        for count, marks in target.items():
            self._target_s[count].append(marks.seconds)
        for at, marks in drafts:
            self._draft_s[at].append(marks.seconds)

    @property
    def times(self) -> StepTimes:
        """Medians of all measurements so far."""
        medians = {count: statistics.median(seconds) for count, seconds in self._target_s.items()}
        return StepTimes([statistics.median(seconds) for seconds in self._draft_s if seconds], medians)

    def _prefill(self, lane: _CachedRunner) -> None:
        """Fill an empty cache with the context."""
        if lane.cache.length == 0:
            lane.runner.prefill(lane.cache, [ANY_ID] * self.context)

    def _draft(self, lane: _CachedRunner, steps: int) -> list[_Marks]:
        """Run steps over one row, one after another as in a round, each between two marks."""
        runner = lane.runner
        if runner.captures:  # with a function of the logits it would capture graphs of its own
            return [self._forward(lane, 1) for _ in range(steps)]
        ids = torch.full((1,), ANY_ID, device=runner.device)
        again = _Same(ids)
        marks: list[_Marks] = []

        def timed() -> Iterator[Then]:
            for _ in range(steps):
                start = runner.clock.mark()
                yield again
                marks.append(_Marks(runner.clock, start, runner.clock.mark()))

        runner.chain(lane.cache, ids, timed())
        lane.cache.rewind(self.context)
        return marks

    def _forward(self, lane: _CachedRunner, rows: int) -> _Marks:
        """Run one forward between two marks, and rewind the cache to the context."""
        runner = lane.runner
        ids = torch.full((rows,), ANY_ID, device=runner.device)
        start = runner.clock.mark()
        runner.forward(lane.cache, ids)
        end = runner.clock.mark()
        lane.cache.rewind(self.context)
        return _Marks(runner.clock, start, end)


def step_times(
    pair: LoadedPair,
    context: int,
    rows: Sequence[int],
    repetitions: int = 25,
    within_s: float = math.inf,
) -> StepTimes:
    """Measure the median times of bare forwards, after one repetition of warm-up.

    No repetition starts after `within_s` seconds, except for the first three.
    """
    StepTimer(pair, context, rows).measure(1)
    timer = StepTimer(pair, context, rows)
    deadline = time.perf_counter() + within_s
    for repetition in range(repetitions):
        if repetition >= _FEWEST_REPETITIONS and time.perf_counter() >= deadline:
            break
        timer.measure(1)
    return timer.times


@torch.inference_mode()
def prefill_s(runner: Runner, tokens: int) -> float:
    """Return the shortest time of three prefills of `tokens` tokens, in seconds, after one of warm-up."""
    seconds = []
    for _ in range(1 + _FEWEST_REPETITIONS):
        cache = runner.new_cache()
        start = runner.clock.mark()
        runner.prefill(cache, [ANY_ID] * tokens)
        end = runner.clock.mark()
        seconds.append(runner.clock.seconds(start, end))
    return min(seconds[1:])
