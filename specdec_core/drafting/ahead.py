"""Preparation of the next round's forwards between rounds, where a capture is not part of a round's time.

Knows nothing of graphs or lengths at which they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runners import RewindableCache, Runner, Step
from ..sampling import Sampler
from ..settings import Settings
from .base import Drafter
from .length import LONGEST_AUTO
from .model import ModelDrafter


@dataclass(frozen=True, slots=True)
class _Lane:
    """A runner with the cache of one conversation and the steps of a round."""

    runner: Runner
    cache: RewindableCache
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Ahead:
    """The steps that a round of an answer may have, on runners that capture them; `longest` is its gamma."""

    longest: int
    lanes: tuple[_Lane, ...]

    def prepare(self, length: int) -> None:
        """Make the steps of the next round ready, after `length` tokens of context."""
        for lane in self.lanes:
            lane.runner.prepare(lane.cache, lane.steps, length + self.longest)


def steps_ahead(
    target: Runner,
    cache: RewindableCache,
    drafters: Sequence[Drafter],
    sampler: Sampler,
    settings: Settings,
) -> Ahead:
    """Return the steps of an answer with these settings: a verification of every length that a round may
    have, and draft steps over one row, and over two after a round in which every draft was accepted.
    """
    longest = LONGEST_AUTO if settings.gamma == "auto" else settings.gamma
    lanes = []
    if target.captures:
        steps = tuple(Step(rows, 0, sampler.verify) for rows in range(1, longest + 2))
        lanes.append(_Lane(target, cache, steps))
    for drafter in drafters:
        if longest and isinstance(drafter, ModelDrafter) and drafter.runner.captures:
            draft = sampler.draft(0)
            steps = tuple(Step(rows, 1, draft) for rows in (1, 2))
            lanes.append(_Lane(drafter.runner, drafter.cache, steps))
    return Ahead(longest, tuple(lanes))
