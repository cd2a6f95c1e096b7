"""The policy of gamma="auto": the drafter and draft length with the largest expected rate. Sees no tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..trace import DraftSource
from .base import Offer
from .length import AdaptiveGamma, GammaChoice

_TURNS = 16
"""Latest turns of the preferred drafter that count."""


class BestOffer:
    """Compares each drafter at its best gamma with the others and with plain decoding.

    An offer has to beat those after it, the last one plain decoding. n-grams, which come first, are probed
    while the model is faster. Rounds without a match show the model's acceptance, so it needs no such probe.
    """

    def __init__(self, lengths: Mapping[DraftSource, AdaptiveGamma]) -> None:
        self.lengths = lengths
        self._preferred = next(iter(lengths))
        self._chosen: DraftSource | None = None
        self._declined: set[DraftSource] = set()
        self._turns: deque[tuple[int, int]] = deque(maxlen=_TURNS)
        self._tokens = self._rounds = 0

    def choose(self, offers: Sequence[Offer]) -> GammaChoice:
        """See GammaPolicy.choose."""
        best = GammaChoice(0, "unprofitable")
        self._declined = set()
        for offer in reversed(offers):
            beside = (best.gain or 1.0) + self.toll(offer.source)
            choice = self.lengths[offer.source].choose(offer.missing, beside)
            if choice.gamma:
                best = replace(choice, offer=offer)
            else:
                self._declined.add(offer.source)
        self._chosen = best.offer.source if best.offer is not None else None
        return best

    def toll(self, source: DraftSource) -> float:
        """Return the cost of catching up with what a turn of the preferred drafter emits, for each of the
        rounds between its turns, in one-row target steps.
        """
        if source == self._preferred or not self._turns:
            return 0.0
        tokens, rounds = (sum(column) for column in zip(*self._turns, strict=True))
        return (
            self.lengths[source].costs.catching_up(1 + tokens // len(self._turns)) * len(self._turns) / rounds
        )

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, computed: int | None = None
    ) -> None:
        """See GammaPolicy.observe."""
        if self._chosen != self._preferred:
            self._rounds += 1
        else:
            if self._rounds:
                self._turns.append((self._tokens, self._rounds))
                self._tokens = self._rounds = 0
            self._tokens += accepted + 1
        rows = 1 + (drafted if computed is None else computed)
        for source, length in self.lengths.items():
            if source == self._chosen:
                length.observe(drafted, accepted, draft_s, verify_s, computed)
            else:
                length.stand_by(rows, verify_s, source in self._declined)
