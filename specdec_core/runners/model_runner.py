"""Common base of the runners: the model's sizes, device, clock, and the modules' own forward.

Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .base import Clock, Format, RewindableCache, Step, Then
from .clock import clock_for
from .few_rows import use_few_rows
from .kv_cache import KVCache
from .lean_forward import UnsupportedError
from .positions import context_length
from .serving import CACHE_ARGUMENTS, storing_layers

PREFILL_CHUNK = 512
SAME_LOGITS = 1e-4
"""Tolerance of `_require_like` for forwards that differ from the modules' in rounding alone."""


class ModelRunner(ABC):
    """The common part of all runners. Subclasses add the cache and the forward.

    `vocab_size` cuts the logits to the tokenizer's ids where the model's own width is padded; `reason` says
    why no faster runner took the model; `device` is where a model over several devices puts out its logits.
    """

    name: str
    captures = False
    rewinds = True
    keeps_modules = True
    same_rows: bool | None = None
    threads: int | None = None
    step_bytes: int | None = None
    unsettled = False
    weights: Format = "float32"
    _copied_bytes = 0
    prefill_chunk = PREFILL_CHUNK

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        reason: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.reason = reason
        self.model = model.eval()
        parameters = inspect.signature(model.forward).parameters
        named = (name for name in CACHE_ARGUMENTS if name in parameters)
        self.cache_argument = next(named, CACHE_ARGUMENTS[0])
        self.keeps_last_rows = "logits_to_keep" in parameters
        self.takes_positions = "position_ids" in parameters
        use_few_rows(self.model)
        config = model.config.get_text_config(decoder=True)
        self.stores = storing_layers(config)
        self.vocab_size: int = vocab_size or config.vocab_size
        self.context_length: int = context_length(config)
        embedding: Any = model.get_input_embeddings()
        self.device: torch.device = device or embedding.weight.device
        self.clock: Clock = clock_for(self.device)

    @property
    def captured(self) -> int:
        """Graphs captured so far."""
        return 0

    @property
    def weights_bytes(self) -> int:
        """See Runner.weights_bytes."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return self._copied_bytes + sum(tensor.nbytes for tensor in tensors if not tensor.is_meta)

    @abstractmethod
    def new_cache(self) -> RewindableCache:
        """Return an empty cache for one conversation."""

    @abstractmethod
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""

    def chain(self, cache: RewindableCache, ids: Tensor, thens: Iterable[Then]) -> None:
        """See Runner.chain."""
        for then in thens:
            ids = self.forward(cache, ids, last_rows=1, then=then)

    def discard(self, cache: RewindableCache) -> None:  # noqa: B027 (right for most subclasses)
        """See Runner.discard. There is nothing to do where caches share no buffers."""

    def prepare(self, cache: RewindableCache, steps: Collection[Step], end: int) -> None:  # noqa: B027
        """See Runner.prepare. There is nothing to do where nothing is captured."""

    def use_threads(self, threads: int) -> None:  # noqa: B027
        """See Runner.use_threads. There is nothing to do where threads are torch's."""

    def drop_bare_graphs(self) -> None:  # noqa: B027
        """See Runner.drop_bare_graphs. There is nothing to do where nothing is captured."""

    def ids(self, ids: Sequence[int]) -> Tensor:
        """See Runner.ids."""
        host = torch.tensor(ids, dtype=torch.int64)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def prefill(
        self, cache: RewindableCache, ids: Sequence[int], stopped: Callable[[], bool] | None = None
    ) -> Tensor | None:
        """See Runner.prefill."""
        logits = None
        for chunk in self.ids(ids).split(self.prefill_chunk):
            if stopped is not None and stopped():
                return None
            logits = self.forward(cache, chunk, last_rows=1)
        return logits

    def _modules_logits(self, cache: Any, ids: Tensor, last_rows: int, **inputs: Any) -> Tensor:
        """Logits [rows or last_rows, vocab] of transformers' own modules over one of its caches."""
        if self.keeps_last_rows:
            inputs["logits_to_keep"] = last_rows
        if self.takes_positions and "position_ids" not in inputs:
            # As generate does; left to themselves, RoBERTa and its kin would count from another number.
            start = cache.length
            inputs["position_ids"] = torch.arange(start, start + ids.shape[0], device=ids.device)[None]
        output = self.model(input_ids=ids[None], **{self.cache_argument: cache}, **inputs, use_cache=True)
        return output.logits[0, -last_rows:, : self.vocab_size]

    @torch.inference_mode()
    def _modules_sample(self) -> Tensor:
        """Logits [rows, vocab] of the modules' forward over a few ids, for `_require_like`."""
        return self._modules_logits(KVCache(self.stores), self._sample_ids(), 0)

    @torch.inference_mode()
    def _require_like(self, wanted: Tensor, tolerance: float) -> None:
        """Compare prefill, one row and several rows with `_modules_sample`.

        `tolerance` bounds the root of the mean square of the differences, in units of the logits' spread, and
        a tenfold of it the largest one. Raises UnsupportedError if they differ by more.
        """
        cache = self.new_cache()
        got = torch.cat([self.forward(cache, part).clone() for part in self._sample_ids().split([9, 1, 2])])
        finite = wanted.isfinite()
        spread = wanted[finite].std().clamp(min=1.0)
        error = (got - wanted)[finite] / spread
        alike = error.square().mean().sqrt() <= tolerance and error.abs().max() <= 10 * tolerance
        if not alike or not torch.equal(got[~finite], wanted[~finite]):
            raise UnsupportedError(f"the {self.name} forward's logits differ from the model's own")

    def _sample_ids(self) -> Tensor:
        return torch.arange(1, 13) * 7919 % self.vocab_size
