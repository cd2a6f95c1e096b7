"""Outcomes of rounds on a device as bytes, so that one copy brings everything to the host. Knows no rule."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..settings import MOST_ALTERNATIVES
from .alternatives import Likeliest, likeliest, likeliest_ids


def packed(ints: Sequence[Tensor], floats: Sequence[Tensor]) -> Tensor:
    """Return the bytes of int64 and float32 tensors, uint8 [bytes]: one operation, without conversions."""
    return torch.cat([part.contiguous().view(-1).view(torch.uint8) for part in [*ints, *floats]])


def unpacked(outcome: Tensor, ints: int) -> tuple[list[int], list[float]]:
    """Return the given number of int64 and the float32 of `packed`, both on the host."""
    return outcome[: 8 * ints].view(torch.int64).tolist(), outcome[8 * ints :].view(torch.float32).tolist()


def with_likeliest(outcome: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """Return the outcome with the alternatives of p [gamma + 1, vocab] and q [gamma, vocab] behind it."""
    return torch.cat([outcome, packed(*likeliest_ids(p, q))])


def split_likeliest(outcome: Tensor, gamma: int, vocab: int, count: int) -> tuple[Tensor, list[Likeliest]]:
    """Split an outcome on the host into what `with_likeliest` got and `count` alternatives a position."""
    most, of_p, of_q = min(MOST_ALTERNATIVES, vocab), gamma + 1, gamma
    at = len(outcome) - most * (8 * (of_p + of_q) + 4 * (of_p + 3 * of_q))
    # Copied to where the views below are aligned.
    ints, floats = outcome[at:].clone().split([8 * most * (of_p + of_q), 4 * most * (of_p + 3 * of_q)])
    ids = ints.view(torch.int64).view(-1, most).split([of_p, of_q])
    probs = floats.view(torch.float32).view(-1, most).split([of_p, of_q, of_q, of_q])
    found = likeliest([part.tolist() for part in ids], [part.tolist() for part in probs], count)
    return outcome[:at], found
