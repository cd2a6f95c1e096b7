"""The interface of a drafter. Knows nothing of how drafts are verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..sampling import Sampler


class Drafter(Protocol):
    """Proposes tokens that continue a context. It lives for one answer."""

    def room(self, length: int) -> int:
        """Return the most drafts that may follow a context of `length` tokens; 0 or less for none."""
        ...

    def missing(self, context: Sequence[int]) -> int:
        """Return the number of context tokens that a forward must take in before the drafter can draft."""
        ...

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Prefill what is missing of a long context, outside of a round's time. Returns False if stopped."""
        ...

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """Pass the sampler at most gamma drafts that continue `context`, none after the end of an answer."""
        ...

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on."""
        ...
