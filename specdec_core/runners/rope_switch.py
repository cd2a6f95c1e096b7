"""The runner of models whose rotation changes at a length of the context (longrope: Phi-3 and its kin).

Up to that length all positions are rotated by short factors, past it all by long ones. So there are keys and
values of both, each computed when it is first needed, and no forward straddles the switch. Knows nothing of
text, sampling or speculation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .base import RewindableCache, Then
from .kv_cache import KVCache
from .model_runner import PREFILL_CHUNK, ModelRunner


class SwitchingCache:
    """The ids of one conversation, with keys and values rotated by the short and by the long factors.

    Either may hold fewer positions than there are ids. Rows from `long_from` on are computed with `long`.
    """

    def __init__(self, short: KVCache, long: KVCache, device: torch.device) -> None:
        self.ids = torch.empty(0, dtype=torch.int64, device=device)
        self.short, self.long = short, long
        self.long_from = 0

    @property
    def length(self) -> int:
        """Positions of the conversation."""
        return self.ids.shape[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of both."""
        return self.short.size_bytes + self.long.size_bytes

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on."""
        self.ids = self.ids[:length]
        self.short.rewind(length)
        self.long.rewind(length)

    def reserve(self, capacity: int) -> None:
        """Make room where rows would be computed at the present length; the other cache grows by itself."""
        (self.long if self.length >= self.long_from else self.short).reserve(capacity)


class RopeSwitchRunner(ModelRunner):
    """Computes with the model's modules, and as transformers' generate does at the switch.

    A prompt longer than `switch` is rotated by the long factors. If an answer crosses the switch, Phi-3
    computes its context anew; models without that step go on with the keys they have.
    """

    name = "eager"

    def __init__(
        self,
        model: PreTrainedModel,
        switch: int,
        *,
        vocab_size: int | None = None,
        reason: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(model, vocab_size=vocab_size, reason=reason, device=device)
        self.switch = switch
        self._starts_anew = self._drops_the_cache()

    def new_cache(self) -> SwitchingCache:
        """See Runner.new_cache."""
        cache = SwitchingCache(KVCache(self.stores), KVCache(self.stores), self.device)
        cache.long_from = self._long_from(0)
        return cache

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        cache = cast(SwitchingCache, cache)
        start = cache.length
        cache.ids = torch.cat([cache.ids, ids])
        first = cache.length - last_rows if last_rows else start
        edge = min(max(first, self.switch), cache.length)
        spans = [(at, end) for at, end in ((first, edge), (edge, cache.length)) if at < end]
        logits = torch.cat([self._logits(cache, at, end) for at, end in spans])
        return logits if then is None else then(logits)

    @torch.inference_mode()
    def prefill(
        self, cache: RewindableCache, ids: Sequence[int], stopped: Callable[[], bool] | None = None
    ) -> Tensor | None:
        """See Runner.prefill."""
        if not ids:
            return None
        cache = cast(SwitchingCache, cache)
        cache.ids = torch.cat([cache.ids, self.ids(ids)])
        cache.long_from = self._long_from(cache.length)
        last = cache.length - 1
        return self._logits(cache, last, last + 1) if self._catch_up(cache, last, last + 1, stopped) else None

    def _long_from(self, prompt_length: int) -> int:
        """The first position whose row is computed with the long factors' cache, by the prompt's length."""
        if prompt_length > self.switch:
            return 0
        return self.switch if self._starts_anew else sys.maxsize

    def _logits(self, cache: SwitchingCache, first: int, end: int) -> Tensor:
        """Logits of rows `first` to `end` − 1, after what their cache lacks."""
        self._catch_up(cache, first, end)
        states = _states(cache, first)
        return self._modules_logits(states, cache.ids[states.length : end], end - first)

    def _catch_up(
        self, cache: SwitchingCache, first: int, end: int, stopped: Callable[[], bool] | None = None
    ) -> bool:
        """Feed the chunks before the one with rows `first` to `end` − 1. Return False if stopped."""
        states = _states(cache, first)
        while stopped is None or not stopped():
            at = states.length
            edge = min(at + PREFILL_CHUNK, end)
            if states is cache.long:
                # The model takes the long factors where the last position of a forward is past the switch.
                edge = max(edge, self.switch + 1)
            elif at < self.switch:
                edge = min(edge, self.switch)
            if edge > first:
                return True
            self._modules_logits(states, cache.ids[at:edge], 1)
        return False

    def _drops_the_cache(self) -> bool:
        """True if the model's own preparation of a step drops the cache at the switch."""
        model: Any = self.model
        ids = torch.zeros(1, self.switch + 1, dtype=torch.int64, device=self.device)
        inputs = model.prepare_inputs_for_generation(ids, **{self.cache_argument: KVCache(self.stores)})
        return inputs.get(self.cache_argument) is None


def _states(cache: SwitchingCache, row: int) -> KVCache:
    """The keys and values that a row is computed with."""
    return cache.long if row >= cache.long_from else cache.short
