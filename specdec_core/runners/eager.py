"""The eager runner: transformers' own modules over a preallocated cache that rewinds.

Works for any decoder-only transformers model whose state is a KV cache. Knows nothing of text, sampling or
speculation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import RewindableCache, Then
from .kv_cache import KVCache
from .model_runner import ModelRunner


class EagerRunner(ModelRunner):
    """Computes with the model's modules as they are; works wherever transformers does."""

    name = "eager"

    def new_cache(self) -> KVCache:
        """See Runner.new_cache."""
        return KVCache(self.stores)

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        logits = self._modules_logits(cache, ids, last_rows)
        return logits if then is None else then(logits)
