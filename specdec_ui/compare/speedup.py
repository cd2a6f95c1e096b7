"""The speedup of a lane over the baseline, from stretches of rounds that both decoded in turns.

The machine's load changes the time of a round, never its drafts and tokens. So these are taken from complete
answers, and only the times are compared stretch by stretch. Knows rounds; nothing of their making.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import specdec_core as sd

LEAST_PAIRS = 6
"""Fewest pairs with an interval: the median lies outside of all values of 5 pairs with 6 %."""
NARROW = 0.05
"""Half width of a narrow interval, as a share of the speedup."""

Stretch = Sequence[sd.Round]
"""Counted rounds, decoded one after the other."""


@dataclass(frozen=True)
class Timing:
    """Complete answers of a lane, and its stretches by sweep: None where the lane did not fill one."""

    answers: Sequence[Sequence[sd.Round]]
    stretches: Sequence[Stretch | None]


def paired_speedup(baseline: Timing, lane: Timing) -> sd.Ratio | None:
    """Return the lane's tokens per second ÷ the baseline's; None without a complete answer of both or a pair.

    A stretch's slowness is the median of its rounds' times ÷ their typical times, so that a stretch with more
    drafts is not mistaken for a slower one, nor one in which the system interrupted a round. The speedup is
    the ratio of the typical rates × the median ratio of the slowness of paired stretches, which cancels the
    load that the typical times met.
    """
    typical, lane_typical = _typical_seconds(baseline), _typical_seconds(lane)
    rate, lane_rate = _typical_rate(baseline, typical), _typical_rate(lane, lane_typical)
    if rate is None or lane_rate is None:
        return None
    pairs = [
        (_slowness(one, typical), _slowness(other, lane_typical))
        for one, other in zip(baseline.stretches, lane.stretches, strict=True)
        if one and other
    ]
    ratios = [lane_rate / rate * one / other for one, other in pairs if one and other]
    return sd.median_ratio(ratios) if ratios else None


def interval_of(speedup: sd.Ratio | None) -> sd.Ratio | None:
    """Return the speedup if it has enough pairs for an interval, else None."""
    return speedup if speedup is not None and speedup.pairs >= LEAST_PAIRS else None


def all_narrow(speedups: Iterable[sd.Ratio | None]) -> bool:
    """Return True if every speedup has a narrow interval."""
    intervals = map(interval_of, speedups)
    return all(each is not None and each.half_width <= NARROW for each in intervals)


def _typical_seconds(lane: Timing) -> dict[int, float]:
    """The median seconds of a round by its number of drafts."""
    seconds = defaultdict(list)
    stretches = [stretch for stretch in lane.stretches if stretch]
    for rounds in [*lane.answers, *stretches]:
        for rnd in sd.counted_rounds(rounds):
            seconds[len(rnd.drafted)].append(rnd.seconds)
    return {drafts: statistics.median(values) for drafts, values in seconds.items()}


def _typical_rate(lane: Timing, typical: Mapping[int, float]) -> float | None:
    """Tokens per second of the complete answers at the typical times."""
    rounds = [rnd for answer in lane.answers for rnd in sd.counted_rounds(answer)]
    seconds = sum(typical[len(rnd.drafted)] for rnd in rounds)
    return sum(len(rnd.emitted) for rnd in rounds) / seconds if seconds else None


def _slowness(stretch: Stretch, typical: Mapping[int, float]) -> float:
    times = [(rnd.seconds, typical[len(rnd.drafted)]) for rnd in stretch]
    return statistics.median(seconds / usual if usual else 0.0 for seconds, usual in times)
