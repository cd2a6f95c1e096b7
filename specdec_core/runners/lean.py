"""The lean runner: the lean forward on the CPU, in float32, over a preallocated cache.

Its constructor fails unless it reproduces the modules' logits. Knows nothing of text, sampling or
speculation.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .base import RewindableCache, Then
from .kv_cache import KVCache
from .lean_forward import MOST_FEW_ROWS, LeanForward, UnsupportedError
from .model_runner import SAME_LOGITS, ModelRunner


class LeanRunner(ModelRunner):
    """A runner for the families that LeanForward supports. Raises UnsupportedError for other models."""

    name = "lean"

    def __init__(
        self, model: PreTrainedModel, *, vocab_size: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(model, vocab_size=vocab_size, reason=reason)
        if any(weight.dtype != torch.float32 or not weight.is_cpu for weight in model.parameters()):
            raise UnsupportedError("the weights are not float32 on the CPU")
        self.lean_forward = LeanForward(model, self.vocab_size)
        self._cos = self._sin = torch.empty(0)
        self._kept_masks: dict[tuple[int, str], Tensor] = {}
        self._require_like(self._modules_sample(), SAME_LOGITS)

    def new_cache(self) -> KVCache:
        """See Runner.new_cache."""
        return KVCache(self.stores)

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        logits = self._logits(cast(KVCache, cache), ids, last_rows)
        return logits if then is None else then(logits)

    def _logits(self, cache: KVCache, ids: Tensor, last_rows: int) -> Tensor:
        rows, start = ids.shape[0], cache.length
        end = start + rows
        if end > self._cos.shape[0]:
            self._cos, self._sin = self.lean_forward.rope(max(1024, 2 * end))
        cos, sin = self._cos[start:end, None], self._sin[start:end, None]
        masks = {attention: self._mask(rows, end, attention) for attention in self.lean_forward.attentions}
        return self.lean_forward(ids, cos, sin, cache.storing, masks, last_rows)

    def _mask(self, rows: int, end: int, attention: str) -> Tensor | None:
        """The mask of the last `rows` of `end` positions, None if one row sees all. Masks for few rows are
        slices of longer ones that are kept.
        """
        window = self.lean_forward.window
        sees_all = attention == "full_attention" or window is None or end <= window
        if rows == 1 and sees_all:
            return None
        if rows > MOST_FEW_ROWS:
            return self.lean_forward.mask(torch.arange(end - rows, end), torch.arange(end), attention)
        kept = self._kept_masks.get((rows, attention))
        if kept is None or kept.shape[1] < end:
            length = max(1024, 2 * end)
            queries = torch.arange(length - rows, length)
            kept = self.lean_forward.mask(queries, torch.arange(length), attention)
            self._kept_masks[rows, attention] = kept
        return kept[:, -end:]
