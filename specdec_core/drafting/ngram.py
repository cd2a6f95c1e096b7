"""Drafting without a model: the continuation of the last few tokens at their previous occurrence.

Follows prompt lookup (Saxena 2023) and ANPD (Ou et al. 2024). q is one-hot, so it is as exact as any other
drafter; it pays where an answer repeats its prompt or itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..sampling import Sampler
from ..settings import MAX_GAMMA
from ..trace import DraftSource, GammaReason
from .base import Offer

LONGEST = 5
SHORTEST = 2


class NgramDrafter:
    """Drafts from an index of the context: the last end of every n-gram of 2 to 5 ids."""

    source: DraftSource = "ngram"
    obstacle: GammaReason = "no_match"

    def __init__(self) -> None:
        self._last_end: dict[tuple[int, ...], int] = {}
        self._indexed = 0

    def offer(self, context: Sequence[int]) -> Offer | None:
        """Return MAX_GAMMA drafts if an n-gram matches: an index has no context length."""
        self._learn(context)
        return None if self._match(context) is None else Offer("ngram", MAX_GAMMA)

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Return True: there is no forward to catch up with."""
        return True

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """Draft the continuation of the latest match of the longest n-gram; nothing if none matches."""
        self._learn(context)
        start = self._match(context)
        drafts: list[int] = []
        if start is not None:
            for at in range(start, start + gamma):
                # A match that reaches the end of the context goes on with its own drafts.
                drafts.append(context[at] if at < len(context) else drafts[at - len(context)])
        sampler.take(drafts)

    def rewind(self, length: int) -> None:
        """Do nothing: the context has emitted tokens only."""

    def _learn(self, context: Sequence[int]) -> None:
        """Index the n-grams that end before the last token, so that none matches itself."""
        for end in range(max(self._indexed, SHORTEST), len(context)):
            for n in range(SHORTEST, min(LONGEST, end) + 1):
                self._last_end[tuple(context[end - n : end])] = end
        self._indexed = max(self._indexed, len(context))

    def _match(self, context: Sequence[int]) -> int | None:
        for n in range(min(LONGEST, len(context)), SHORTEST - 1, -1):
            end = self._last_end.get(tuple(context[-n:]))
            if end is not None:
                return end
        return None
