"""An output layer for the most frequent tokens only, for drafters: the idea of FR-Spec (Zhao et al. 2025).

A drafter's head is much of its cost where the vocabulary is large. Tokens left out get logit -inf, so q is
zero there and rejection sampling stays exact: the target can still choose them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from transformers import PreTrainedModel

from ..errors import LoadError
from .few_rows import few_rows_linear


class ShortHead(torch.nn.Module):
    """An output layer with the rows `ids` of `whole` only; its logits have the full width, -inf elsewhere.

    The rows of the lowest ids, 0 to `first` − 1, are read from the whole weight in place, which the embedding
    often shares; the others are copied. `whole` is None for a layer that was made `of_rows`.
    """

    others: Tensor
    _shape: Tensor

    def __init__(self, whole: torch.nn.Linear, ids: Iterable[int]) -> None:
        super().__init__()
        kept = sorted(set(ids))
        self.whole: torch.nn.Linear | None = whole
        self.first = next((at for at, token_id in enumerate(kept) if at != token_id), len(kept))
        others = torch.tensor(kept[self.first :], dtype=torch.int64, device=whole.weight.device)
        bias = None if whole.bias is None else whole.bias.data[others]
        self._keep(others, whole.weight.data[others], bias)

    @classmethod
    def of_rows(cls, weight: Tensor, ids: Tensor, width: int) -> ShortHead:
        """Return a layer that was made short: row i of weight [kept, hidden] gives the logit of ids[i]."""
        head = cls.__new__(cls)
        torch.nn.Module.__init__(head)
        order = ids.argsort()
        head.whole, head.first = None, 0
        head._shape = torch.empty(width, weight.shape[1], dtype=weight.dtype, device="meta")
        head._keep(ids[order], weight[order], None)
        return head

    def _keep(self, others: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        self.register_buffer("others", others, persistent=False)
        self.other_weight = torch.nn.Parameter(weight, requires_grad=False)
        self.other_bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)

    @property
    def weight(self) -> Tensor:
        """The whole weight [width, hidden], on the meta device if there is none."""
        return self._shape if self.whole is None else self.whole.weight

    @property
    def unread_bytes(self) -> int:
        """Bytes of the whole weight that a forward does not read."""
        return 0 if self.whole is None else self.weight[self.first :].nbytes

    def kept_weight(self) -> Tensor:
        """Return the rows that are kept [kept, hidden], in the order of `kept_ids`."""
        if not self.first or self.whole is None:
            return self.other_weight.data
        return torch.cat([self.whole.weight.data[: self.first], self.other_weight.data])

    def kept_bias(self) -> Tensor | None:
        """Return their bias [kept]."""
        if self.whole is None or self.whole.bias is None:
            return None
        return self.whole.bias.data[self.kept_ids()]

    def kept_ids(self) -> Tensor:
        """Ids whose rows are kept, ascending."""
        return torch.cat([torch.arange(self.first, device=self.others.device), self.others])

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [..., hidden] → logits [..., width], -inf where no row is kept. Does not synchronize."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        first, width = self.first, self.weight.shape[0]
        logits = flat.new_full((flat.shape[0], width), -torch.inf)
        if self.whole is not None:
            bias = None if self.whole.bias is None else self.whole.bias[:first]
            logits[:, :first] = _product(flat, self.weight[:first], bias)
        if self.others.shape[0]:
            logits.index_copy_(1, self.others, _product(flat, self.other_weight, self.other_bias))
        return logits.view(*hidden.shape[:-1], width)


def _product(flat: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (flat.is_cpu and flat.dtype == torch.float32):
        return linear(flat, weight, bias)
    short = few_rows_linear(flat, weight)
    return short if bias is None else short + bias


def shorten_head(model: PreTrainedModel, ids: Iterable[int]) -> None:
    """Replace the model's output layer by one with the rows `ids` only.

    Raises LoadError for an output layer that is quantized.
    """
    head: Any = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise LoadError(
            f"The drafter's output layer is a {type(head).__name__}, of which no rows can be left out. "
            "Remove drafter_vocabulary from the preset, or choose a drafter whose output layer is not "
            "quantized."
        )
    model.set_output_embeddings(ShortHead(head, ids))


@contextmanager
def whole_heads(*models: PreTrainedModel) -> Iterator[None]:
    """Within it the models have the output layers that transformers gave them, for measuring transformers.

    A layer that was made short has no other.
    """
    short = [
        (model, head, whole)
        for model in models
        if isinstance(head := model.get_output_embeddings(), ShortHead) and (whole := head.whole) is not None
    ]
    for model, _, whole in short:
        model.set_output_embeddings(whole)
    try:
        yield
    finally:
        for model, head, _ in short:
            model.set_output_embeddings(head)


def frequent_ids(size: int, width: int, always: Collection[int], counted: Iterable[int] = ()) -> list[int]:
    """Return the ids below `width` to keep: the `size` most frequent, and `always`, the control tokens.

    The most frequent of `counted` come first, then the lowest ids, since BPE ids are roughly in the order of
    frequency.
    """
    by_count = [token_id for token_id, _ in Counter(counted).most_common()]
    frequent = list(dict.fromkeys([*by_count, *range(width)]))[:size]
    return sorted(token_id for token_id in {*frequent, *always} if token_id < width)


def puts_out_only(model: PreTrainedModel, ids: Collection[int]) -> bool:
    """Return True if the model's output layer was shortened to some of these ids."""
    head = model.get_output_embeddings()
    if not isinstance(head, ShortHead):
        return False
    kept = head.kept_ids()
    return len(kept) <= len(ids) and set(kept.tolist()) <= set(ids)
