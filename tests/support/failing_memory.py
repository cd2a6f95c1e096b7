"""Runners in which memory runs out at chosen forwards, half-way through the layers, as on a full device."""

from __future__ import annotations

from collections.abc import Collection

import torch
from transformers import PreTrainedModel

from specdec_core.runners import EagerRunner
from specdec_core.runners.kv_cache import KVCache
from specdec_core.runners.static import StaticRunner

ERRORS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
        "to allocate 8 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "python": MemoryError,
}


class Shortage:
    """Memory that runs out at the calls numbered in `at`, counted from 1; `calls` is the number so far."""

    def __init__(self, at: Collection[int] = (), error: str = "cuda") -> None:
        self.at = at
        self.calls = 0
        self._error = error

    def call(self) -> None:
        """Count a call. Raises the error at the chosen ones."""
        self.calls += 1
        if self.calls in self.at:
            raise ERRORS[self._error]()


class _FailingCache(KVCache):
    shortage: Shortage

    def reserve(self, capacity: int) -> None:
        self.shortage.call()
        super().reserve(capacity)


class FailingEager(EagerRunner):
    """An eager runner that counts each forward before its last layer, and each reservation of a cache."""

    def __init__(self, model: PreTrainedModel, shortage: Shortage) -> None:
        super().__init__(model)
        self._shortage = shortage
        model.model.layers[-1].register_forward_pre_hook(lambda *_: shortage.call())

    def new_cache(self) -> KVCache:
        """See Runner.new_cache."""
        cache = super().new_cache()
        cache.__class__ = _FailingCache
        cache.shortage = self._shortage
        return cache


class FailingStatic(StaticRunner):
    """A static runner that counts each forward before and after it is computed."""

    def __init__(self, model: PreTrainedModel, shortage: Shortage) -> None:
        super().__init__(model)
        self._shortage = shortage

    def compute(self, *arguments):
        """See StaticRunner.compute."""
        self._shortage.call()
        result = super().compute(*arguments)
        self._shortage.call()
        return result
