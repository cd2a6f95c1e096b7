"""Ratios of paired measurements: their median and its interval. Knows nothing of what was measured."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of paired ratios, with a 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def half_width(self) -> float:
        """Half of the interval, as a share of the median."""
        return (self.high - self.low) / (2 * self.median)


def median_ratio(ratios: Sequence[float]) -> Ratio:
    """Return the median of one or more ratios with its interval, which is the same for the same ratios."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    low, high = medians[round(0.025 * (_RESAMPLES - 1))], medians[round(0.975 * (_RESAMPLES - 1))]
    return Ratio(statistics.median(ratios), low, high, len(ratios))
