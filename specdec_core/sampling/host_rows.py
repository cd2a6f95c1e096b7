"""Distributions on the host: rows of numpy, and draws from them. Never sees a model."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .filters import SamplingParams, probabilities
from .history import History
from .host_draw import block_sums, draw_on_host


class HostRow:
    """One distribution: p float32 [vocab]."""

    __slots__ = ("probs",)

    def __init__(self, probs: np.ndarray) -> None:
        self.probs = probs

    def draw(self, uniform: float) -> int:
        """Draw an id with a uniform in (0, 1)."""
        return draw_on_host(self.probs, uniform)

    def draw_residual(self, q: HostRow, uniform: float) -> int:
        """Draw an id from max(p − q, 0), or from p if that is all zero (Leviathan et al. 2023, 2.3)."""
        rest = self.probs - q.probs
        np.maximum(rest, 0, out=rest)
        return self._draw_rest(rest, uniform)

    def draw_without(self, draft: int, uniform: float) -> int:
        """Draw an id from the residual where q is one-hot at `draft`."""
        rest = self.probs.copy()
        rest[draft] = 0
        return self._draw_rest(rest, uniform)

    def _draw_rest(self, rest: np.ndarray, uniform: float) -> int:
        sums = block_sums(rest)
        return draw_on_host(rest, uniform, sums) if sums.any() else self.draw(uniform)


def host_rows(logits: Tensor, params: SamplingParams, history: History | None = None) -> list[HostRow]:
    """Return the distribution of each row of logits [rows, vocab]; see filters.adjusted for `history`."""
    return [HostRow(row) for row in probabilities(logits, params, history).numpy()]
