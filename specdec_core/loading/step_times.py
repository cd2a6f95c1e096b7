"""How long bare forwards take, measured with nothing sampled: the drafter's, and the target's by rows."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..pair import LoadedPair
from ..runners import Runner

_FEWEST_REPETITIONS = 3


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Median seconds of bare forwards in the middle of an answer, nothing sampled."""

    drafter_s: float
    target_s: dict[int, float]
    """By number of rows."""

    @property
    def c(self) -> float:
        return self.drafter_s / self.target_s[1]

    def v(self, rows: int) -> float:
        return self.target_s[rows] / self.target_s[1]


class StepTimer:
    """Bare forwards after `context` tokens: the drafter's over one row, the target's over each of `rows`.

    What is timed may be spread over a longer measurement, a few repetitions at a time.
    """

    def __init__(self, pair: LoadedPair, context: int, rows: Sequence[int]) -> None:
        self.context = context
        self._target, self._drafter = pair.target, pair.drafter
        self._caches = [runner.new_cache() for runner in (pair.target, pair.drafter) if runner is not None]
        self._target_s: dict[int, list[float]] = {count: [] for count in sorted({1, *rows})}
        self._drafter_s: list[float] = []

    @torch.inference_mode()
    def measure(self, repetitions: int) -> None:
        """All kinds take turns within a repetition, so that they meet the same machine. As in a round, as
        many steps of the drafter come before a forward of the target as that has drafts: one after the other
        they find their weights in the processor's cache.
        """
        for runner, cache in zip((self._target, self._drafter), self._caches, strict=False):
            if cache.length == 0:
                runner.prefill(cache, [5] * self.context)
        for _ in range(repetitions):
            for count, seconds in self._target_s.items():
                if self._drafter is not None:
                    self._drafter_s += [
                        self._forward_s(self._drafter, self._caches[1], 1) for _ in range(count - 1)
                    ]
                if count == 1:
                    # Plain decoding runs nothing else in between, which leaves its weights in the cache.
                    self._forward_s(self._target, self._caches[0], 1)
                seconds.append(self._forward_s(self._target, self._caches[0], count))

    @property
    def times(self) -> StepTimes:
        """Medians of everything measured so far."""
        medians = {count: statistics.median(seconds) for count, seconds in self._target_s.items()}
        return StepTimes(statistics.median(self._drafter_s) if self._drafter_s else 0.0, medians)

    def _forward_s(self, runner: Runner, cache, rows: int) -> float:
        ids = torch.full((rows,), 5, device=runner.device)
        start = runner.clock.mark()
        runner.forward(cache, ids)
        end = runner.clock.mark()
        cache.rewind(self.context)
        return runner.clock.seconds(start, end)


def step_times(
    pair: LoadedPair,
    context: int,
    rows: Sequence[int],
    repetitions: int = 25,
    within_s: float = math.inf,
) -> StepTimes:
    """Median times of bare forwards; a first repetition warms up and is not kept. After `within_s` seconds
    no further repetition is begun, three at least being kept.
    """
    StepTimer(pair, context, rows).measure(1)
    timer = StepTimer(pair, context, rows)
    ends = time.perf_counter() + within_s
    for kept in range(repetitions):
        if kept >= _FEWEST_REPETITIONS and time.perf_counter() >= ends:
            break
        timer.measure(1)
    return timer.times


@torch.inference_mode()
def prefill_s(runner: Runner, tokens: int) -> float:
    """The shortest of a few prefills of so many tokens, in seconds; a first one warms up."""
    seconds = []
    for _ in range(1 + _FEWEST_REPETITIONS):
        cache = runner.new_cache()
        start = runner.clock.mark()
        runner.prefill(cache, [5] * tokens)
        end = runner.clock.mark()
        seconds.append(runner.clock.seconds(start, end))
    return min(seconds[1:])
