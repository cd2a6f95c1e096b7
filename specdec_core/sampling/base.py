"""What the round loop asks of every sampler, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Verdict:
    """A round's outcome on the host. The first `accepted` of `drafts` stand, then comes `token`.

    `target_probs` and `drafter_probs` are p and q of each draft, the `token_` ones those of `token`; q is
    None after a round in which every draft stood, where no drafter spoke of that position.
    """

    drafts: list[int]
    accepted: int
    token: int
    target_probs: list[float]
    drafter_probs: list[float]
    token_target_prob: float
    token_drafter_prob: float | None

    def cut_to(self, drafts: int) -> Verdict:
        """The same outcome with nothing after the first `drafts` drafts, all of which stand."""
        return replace(
            self,
            drafts=self.drafts[:drafts],
            accepted=drafts,
            target_probs=self.target_probs[:drafts],
            drafter_probs=self.drafter_probs[:drafts],
        )


class Sampler(Protocol):
    """A round: `start_round`, a `draft` for each step or all of them with `take`, `verify`, `read`.

    What `draft` returns, and `verify`, are handed to a runner, which calls them with the logits or captures
    them with the forward.
    """

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """Prepares for up to gamma drafts after `context`, and the token after them."""

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        """For draft `step`: the drafter's logits [1, vocab] → its token [1], which the sampler keeps."""

    def take(self, ids: Sequence[int]) -> None:
        """Drafts that were not drawn from a distribution: their q is one-hot."""

    @property
    def rows(self) -> Tensor:
        """What the target verifies: the last id of the context and the drafts, [1 + drafts]."""

    def verify(self, logits: Tensor) -> Any:
        """The target's logits [1 + drafts, vocab] → what `read` takes."""

    def read(self, outcome: Any) -> Verdict:
        """The round's one wait for the device."""
