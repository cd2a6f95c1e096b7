"""What every way of drafting offers the round loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..sampling import Sampler


class Drafter(Protocol):
    def missing(self, context: Sequence[int]) -> int:
        """How many tokens of the context it has yet to take in before it can draft."""

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Takes in what it lacks of a long context, before a round is timed; False where it was stopped."""

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """Gives the sampler at most gamma drafts that continue `context`: fewer where it has no more."""

    def rewind(self, length: int) -> None:
        """Forgets whatever it holds of positions from `length` on."""
