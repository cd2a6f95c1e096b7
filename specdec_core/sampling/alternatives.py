"""The likeliest tokens at each position of a round, with p and q. Never sees a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import MOST_ALTERNATIVES


@dataclass(frozen=True, slots=True)
class Candidate:
    """A token that a model might have chosen. `drafter_prob` is None where no draft was asked for."""

    id: int
    target_prob: float
    drafter_prob: float | None


@dataclass(frozen=True, slots=True)
class Likeliest:
    """The likeliest tokens of both models at one position, in falling order. Those of the drafter are none
    where no draft was asked for.
    """

    target: list[Candidate]
    drafter: list[Candidate]


def likeliest_ids(p: Tensor, q: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Find the likeliest tokens in p [rows, vocab] and q [drafts, vocab], of the first rows.

    Returns int64 tensors, the ids by p [rows, most] and by q [drafts, most], and float32 tensors: p of the
    first, q of their first rows, q of the second, p of them. Fixed shapes and no synchronization.
    """
    drafts = q.shape[0]
    most = min(MOST_ALTERNATIVES, p.shape[-1])
    by_p, by_q = p.topk(most, dim=-1), q.topk(most, dim=-1)
    q_of_best = q.gather(-1, by_p.indices[:drafts])
    return [by_p.indices, by_q.indices], [
        by_p.values,
        q_of_best,
        by_q.values,
        p[:drafts].gather(-1, by_q.indices),
    ]


def likeliest(
    ids: Sequence[Sequence[Sequence[int]]], probs: Sequence[Sequence[Sequence[float]]], count: int
) -> list[Likeliest]:
    """Return the `count` likeliest tokens of each row from the lists of likeliest_ids. Impossible tokens are
    left out.
    """
    (by_p, by_q), (p_of_p, q_of_p, q_of_q, p_of_q) = ids, probs
    found = []
    for row, (best, p) in enumerate(zip(by_p, p_of_p, strict=True)):
        drafted = row < len(by_q)
        q = q_of_p[row] if drafted else [None] * len(best)
        target = [Candidate(*each) for each in zip(best, p, q, strict=True) if each[1] > 0]
        drafter = []
        if drafted:
            own = zip(by_q[row], p_of_q[row], q_of_q[row], strict=True)
            drafter = [Candidate(*each) for each in own if each[2] > 0]
        found.append(Likeliest(target[:count], drafter[:count]))
    return found


def likeliest_on_host(p: Tensor, q: Tensor, count: int) -> list[Likeliest]:
    """Return the `count` likeliest tokens of each row of p [rows, vocab] and of q [drafts, vocab]."""
    ids, probs = likeliest_ids(p, q)
    return likeliest([part.tolist() for part in ids], [part.tolist() for part in probs], count)


def one_hot(ids: Sequence[int], vocab: int) -> Tensor:
    """Return the q of drafts that were not drawn from a distribution, float32 [drafts, vocab]."""
    return torch.nn.functional.one_hot(torch.tensor(ids, dtype=torch.int64), vocab).float()
