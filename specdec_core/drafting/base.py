"""The interface of a drafter. Knows nothing of how drafts are verified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..sampling import Sampler
from ..trace import DraftSource, GammaReason


@dataclass(frozen=True, slots=True)
class Offer:
    """Up to `room` drafts of one drafter after a context, of which it lacks `missing` tokens: a forward must
    take them in first.
    """

    source: DraftSource
    room: int
    missing: int = 0


class Drafter(Protocol):
    """Proposes tokens that continue a context. It lives for one answer."""

    @property
    def source(self) -> DraftSource:
        """The kind of drafter."""
        ...

    @property
    def obstacle(self) -> GammaReason:
        """The reason for a round without an offer."""
        ...

    def offer(self, context: Sequence[int]) -> Offer | None:
        """Return the drafts that may follow `context`; None if none may. Looks at nothing but the context."""
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
