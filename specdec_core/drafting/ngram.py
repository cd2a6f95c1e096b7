"""Drafting without a model: what followed the last few tokens when they stood in this text before.

The idea of prompt lookup (Saxena 2023) and of ANPD (Ou et al. 2024). q is one-hot, so it is as exact as
any other drafter; it is good where an answer repeats its prompt or itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..sampling import Sampler

LONGEST = 5
SHORTEST = 2


class NgramDrafter:
    """Remembers, for every run of 2 to 5 ids, where it ended last. Grows with the context."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._known = 0

    def missing(self, context: Sequence[int]) -> int:
        """None that it would have to compute anything for."""
        return 0

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        self._learn(context)
        return True

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """The continuation of the latest match of the longest run; no draft where nothing matches."""
        self._learn(context)
        start = self._match(context)
        drafts: list[int] = []
        if start is not None:
            for at in range(start, start + gamma):
                # A match that reaches the end of the text goes on with what it has drafted itself.
                drafts.append(context[at] if at < len(context) else drafts[at - len(context)])
        sampler.take(drafts)

    def rewind(self, length: int) -> None:
        """The context holds only what was emitted, so nothing has to be forgotten."""

    def _learn(self, context: Sequence[int]) -> None:
        """Runs that end before the last token, so that a run never matches itself."""
        for end in range(max(self._known, SHORTEST), len(context)):
            for n in range(SHORTEST, min(LONGEST, end) + 1):
                self._ends[tuple(context[end - n : end])] = end
        self._known = max(self._known, len(context))

    def _match(self, context: Sequence[int]) -> int | None:
        for n in range(min(LONGEST, len(context)), SHORTEST - 1, -1):
            end = self._ends.get(tuple(context[-n:]))
            if end is not None:
                return end
        return None
