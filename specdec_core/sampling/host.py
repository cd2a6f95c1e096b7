"""Sampling where the logits are in the host's own memory (CPU).

Nothing has to be waited for there, so a round walks its drafts one by one, on numpy's views of the tensors,
and computes only the residual that it draws from. A forward leaves nothing else in the processor's caches, so
that an operation here costs five times what it does in a loop of its own: few matter more than fast ones. The
functions it must agree with are in `verification`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .base import Verdict
from .filters import SamplingParams, filtered_logits, probabilities
from .noise import KeyedNoise, Uniforms, draw_on_host
from .verification import walk_match, walk_rejection


class _HostSampler(ABC):
    """Keeps the drafts of a round, and what each was drawn from [1, vocab] where that is not one-hot."""

    def __init__(self) -> None:
        self._fed = torch.zeros(1, dtype=torch.int64)
        self._fed_on_host = self._fed.numpy()

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        self._last = context[-1]
        self._drafts: list[int] = []
        self._q: list[Tensor] = []

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        return self._draft

    @abstractmethod
    def _draft(self, logits: Tensor) -> Tensor:
        """The drafter's logits [1, vocab] → its token [1]."""

    def take(self, ids: Sequence[int]) -> None:
        self._drafts += ids

    @property
    def rows(self) -> Tensor:
        return torch.from_numpy(np.array([self._last, *self._drafts]))

    def read(self, outcome: Verdict) -> Verdict:
        return outcome

    def _keep(self, draft: int, q: Tensor | None) -> Tensor:
        """Its token [1], in a tensor that the next forward reads and the next draft overwrites."""
        self._drafts.append(draft)
        if q is not None:
            self._q.append(q)
        self._fed_on_host[0] = draft
        return self._fed

    def _rows_of_q(self) -> list[np.ndarray]:
        return [row.numpy()[0] for row in self._q]

    def _verdict(self, accepted: int, token: int, p: np.ndarray, q: Sequence[np.ndarray]) -> Verdict:
        """p [gamma + 1, vocab]; q a row [vocab] for each draft, or none where all are one-hot."""
        drafts, gamma = self._drafts, len(self._drafts)
        token_q = None
        if accepted < gamma:
            token_q = float(q[accepted][token]) if q else 0.0
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=[float(row[draft]) for row, draft in zip(p, drafts, strict=False)],
            drafter_probs=[float(row[x]) for row, x in zip(q, drafts, strict=True)] if q else [1.0] * gamma,
            token_target_prob=float(p[accepted, token]),
            token_drafter_prob=token_q,
        )


class GreedySampler(_HostSampler):
    """Temperature 0: both models take the argmax, p and q are one-hot, no noise is needed."""

    def _draft(self, logits: Tensor) -> Tensor:
        return self._keep(_argmax(logits)[0], None)

    def verify(self, logits: Tensor) -> Verdict:
        drafts, choices = self._drafts, _argmax(logits)
        accepted, token = walk_match(choices, drafts)
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=[float(draft == choice) for draft, choice in zip(drafts, choices, strict=False)],
            drafter_probs=[1.0] * len(drafts),
            token_target_prob=1.0,
            token_drafter_prob=0.0 if accepted < len(drafts) else None,
        )


class RejectionSampler(_HostSampler):
    """Speculative sampling with independent keyed draws for drafting, accepting and the residual."""

    def __init__(self, params: SamplingParams, noise: KeyedNoise) -> None:
        super().__init__()
        self.params = params
        self.noise = noise

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        super().start_round(context, gamma)
        position = len(context)
        self._uniforms: Uniforms = self.noise.uniforms(range(position, position + gamma + 1))

    def _draft(self, logits: Tensor) -> Tensor:
        q = probabilities(logits, self.params)
        return self._keep(draw_on_host(q, self._uniforms.draft[len(self._drafts)]), q)

    def verify(self, logits: Tensor) -> Verdict:
        p, q = probabilities(logits, self.params).numpy(), self._rows_of_q()
        accepted, token = walk_rejection(
            p, q or None, self._drafts, self._uniforms.accept, self._uniforms.residual
        )
        return self._verdict(accepted, token, p, q)


class CoupledSampler(_HostSampler):
    """Both models take the argmax of log probability plus the same Gumbel noise, keyed by position.

    The draw is exact (Gumbel-max), and the same whatever was drafted, so a seed gives the baseline's text.
    """

    def __init__(self, params: SamplingParams, noise: KeyedNoise) -> None:
        super().__init__()
        self.params = params
        self.noise = noise

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        super().start_round(context, gamma)
        self._positions = range(len(context), len(context) + gamma + 1)
        self._gumbel: Tensor | None = None

    def _draft(self, logits: Tensor) -> Tensor:
        filtered = filtered_logits(logits, self.params)
        (choice,) = _argmax(filtered + self._noise(logits.shape[-1])[len(self._drafts)])
        return self._keep(choice, filtered.softmax(-1))

    def verify(self, logits: Tensor) -> Verdict:
        filtered = filtered_logits(logits, self.params)
        choices = _argmax(filtered + self._noise(logits.shape[-1])[: logits.shape[0]])
        accepted, token = walk_match(choices, self._drafts)
        return self._verdict(accepted, token, filtered.softmax(-1).numpy(), self._rows_of_q())

    def _noise(self, vocab: int) -> Tensor:
        if self._gumbel is None:
            self._gumbel = self.noise.gumbel(self._positions, vocab)
        return self._gumbel


def _argmax(scores: Tensor) -> list[int]:
    """scores [rows, vocab] → the first of the best in each row [rows]."""
    return scores.float().numpy().argmax(-1).tolist()
