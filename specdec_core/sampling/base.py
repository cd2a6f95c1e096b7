"""The interface of a sampler, and the outcome of a round.

Knows nothing of models or text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import Tensor

from .alternatives import Likeliest


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a round, on the host: the first `accepted` of `drafts`, then `token` from the target.

    No draft follows one that ends the answer. Probabilities are NaN where a model's logits are not finite.
    """

    drafts: list[int]
    accepted: int
    token: int
    """The correction after a rejection, the bonus after a fully accepted round."""
    target_probs: list[float]
    """p of each draft."""
    drafter_probs: list[float]
    """q of each draft."""
    token_target_prob: float
    """p of `token`."""
    token_drafter_prob: float | None
    """q of `token`; None for a bonus, since no drafter proposed for its position."""
    alternatives: list[Likeliest] | None = None
    """The likeliest tokens for each draft, then for the position after them. None unless they are wanted."""

    def cut_to(self, drafts: int) -> Verdict:
        """Return the outcome with only the first `drafts` drafts. `token` is not part of it if more were
        accepted.
        """
        return replace(
            self,
            drafts=self.drafts[:drafts],
            accepted=min(self.accepted, drafts),
            target_probs=self.target_probs[:drafts],
            drafter_probs=self.drafter_probs[:drafts],
            alternatives=None if self.alternatives is None else self.alternatives[: drafts + 1],
        )

    @property
    def not_finite(self) -> Literal["target", "drafter"] | None:
        """The model whose logits have NaN, +inf or nothing but -inf in a row; None if both are finite."""
        if not all(map(math.isfinite, self.drafter_probs)):
            return "drafter"
        if not math.isfinite(self.token_target_prob) or not all(map(math.isfinite, self.target_probs)):
            return "target"
        return None


def count_to_end(ids: Sequence[int], eos_ids: Collection[int]) -> int:
    """Return the number of `ids` up to and with the first that ends an answer; all if none does."""
    return next((count for count, token_id in enumerate(ids, start=1) if token_id in eos_ids), len(ids))


class Sampler(Protocol):
    """Drafting and verification for one answer.

    Calls of a round: `start_round`, then `draft` for each step or `take` for all drafts at once, then
    `verify`, then `read`. The functions that `draft` and `verify` return go to a runner, which calls them
    with a forward's logits or captures them in its graph.
    """

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """Prepare for up to `gamma` drafts after `context`, and for the target's token after them. The first
        context of an answer is the prompt, which later ones continue.
        """
        ...

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        """Return a function that draws and stores draft `step`: logits [1, vocab] → its id [1], int64."""
        ...

    def take(self, ids: Sequence[int]) -> None:
        """Store drafts that were not drawn from a distribution, up to one that ends the answer; their q is
        one-hot.
        """
        ...

    @property
    def complete(self) -> bool:
        """True if the last draft ends the answer, so that none may follow. False where finding out would
        synchronize with a device; `read` then cuts the drafts that follow.
        """
        ...

    @property
    def rows(self) -> Tensor:
        """Ids that the target verifies: the last of the context, then the drafts [1 + drafts], int64."""
        ...

    @property
    def verify(self) -> Callable[[Tensor], Any]:
        """Function of the target's logits [1 + drafts, vocab] that returns the argument of `read`."""
        ...

    def read(self, outcome: Any) -> Verdict:
        """Return the round's outcome. The only call of a round that synchronizes with the device."""
        ...
