"""An output layer for the most frequent tokens only, for drafters: the idea of FR-Spec (Zhao et al. 2025).

A drafter's head is much of its cost where the vocabulary is large. Tokens left out get logit -inf, so q is
zero there and rejection sampling stays exact: the target can still choose them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .few_rows import few_rows_linear


class ShortHead(torch.nn.Module):
    """An output layer with the rows `ids` [N] only; its logits have the full width, -inf elsewhere."""

    ids: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, ids: Tensor, width: int) -> None:
        super().__init__()
        self.register_buffer("ids", ids, persistent=False)
        self.weight = torch.nn.Parameter(weight[ids].clone(), requires_grad=False)
        self.bias = None if bias is None else torch.nn.Parameter(bias[ids].clone(), requires_grad=False)
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., hidden] → logits [..., width], -inf where no row is kept."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        on_cpu = flat.is_cpu and flat.dtype == torch.float32
        short = (
            few_rows_linear(flat, self.weight) if on_cpu else torch.nn.functional.linear(flat, self.weight)
        )
        if self.bias is not None:
            short = short + self.bias
        logits = short.new_full((flat.shape[0], self.width), -torch.inf)
        logits[:, self.ids] = short
        return logits.view(*hidden.shape[:-1], self.width)


def shorten_head(model: PreTrainedModel, ids: Iterable[int]) -> None:
    """Replace the model's output layer by one with the rows `ids` only."""
    head: Any = model.get_output_embeddings()
    kept = torch.tensor(sorted(set(ids)), device=head.weight.device)
    model.set_output_embeddings(ShortHead(head.weight.data, head.bias, kept, head.weight.shape[0]))


def frequent_ids(size: int, width: int, always: Collection[int], counted: Iterable[int] = ()) -> list[int]:
    """Return the `size` ids to keep: `always` (those that end an answer), then the most frequent of
    `counted`, then the lowest, since BPE ids are roughly in the order of frequency.
    """
    by_count = [token_id for token_id, _ in Counter(counted).most_common()]
    ordered = dict.fromkeys([*always, *by_count, *range(width)])
    return list(ordered)[: min(size, width)]
