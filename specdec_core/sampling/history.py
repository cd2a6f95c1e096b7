"""Tokens that come before each row of a verification, for penalties. Never sees a model.

Row i follows the context and drafts 0 … i − 1, so that no two rows of a round have the same history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class History:
    """Counts of the tokens that come before each row, float32 [rows, vocab], or [rows, n] for the n tokens
    `ids`, int64, where no others do.
    """

    in_all: Tensor
    """In the prompt and the answer."""
    in_answer: Tensor
    ids: Tensor | None = None

    @classmethod
    def of_rows(cls, counts: Tensor, drafts: Tensor, before: Tensor) -> History:
        """Return the history of rows that follow a context and some of `drafts` [n], int64.

        `counts` [2, vocab] are a Tally's; `before` [rows, n] is 1 for each draft that comes before a row,
        else 0. Fixed shapes and no synchronization: a CUDA graph can capture it.
        """
        shape = 2, before.shape[0]
        rows = counts[:, None].expand(*shape, -1).clone()
        index = drafts.expand(*shape, -1)
        rows.scatter_add_(-1, index, before.expand(*shape, -1))
        return cls(rows[0], rows[1])

    @classmethod
    def of_known(cls, counts: Tensor, drafts: Tensor, before: Tensor) -> History:
        """Return the same as `of_rows` for the tokens alone that come before a row. Synchronizes."""
        ids = torch.cat([counts[0].nonzero()[:, 0], drafts]).unique()
        rows = cls.of_rows(counts[:, ids], torch.searchsorted(ids, drafts), before)
        return cls(rows.in_all, rows.in_answer, ids)


class Tally:
    """Counts of the tokens of a growing context, float32 [2, vocab]: in all of it, and in the answer."""

    def __init__(self, vocab: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(2, vocab, device=device)
        self._counted = 0

    def update(self, context: Sequence[int]) -> None:
        """Count the tokens that the context has gained. The first context is the prompt."""
        device, vocab = self.counts.device, self.counts.shape[1]
        gained = list(context[self._counted :])
        # Both rows in one operation: where memory runs out, nothing is counted, and a retry counts once.
        places = gained + ([vocab + token for token in gained] if self._counted else [])
        if places:
            index = torch.tensor(places)
            if device.type == "cuda":
                index = index.pin_memory().to(device, non_blocking=True)
            ones = torch.ones(len(places), device=device)
            self.counts.view(-1).index_add_(0, index, ones)
        self._counted = len(context)

    @property
    def history(self) -> History:
        """The history of the one row that follows the context."""
        return History(self.counts[:1], self.counts[1:])


def drafts_before(rows: int, drafts: int, device: torch.device | str = "cpu") -> Tensor:
    """Return `before` of History.of_rows for consecutive rows: draft j comes before each row i > j."""
    return torch.ones(rows, drafts, device=device).tril_(-1)
