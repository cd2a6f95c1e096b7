"""The ONNX Runtime runner: a model's forward as one graph without Python between its operations, on the CPU.

A row's logits are the same bit for bit whatever the number of rows beside it, as far as the CPU's kernels
allow. In float32 the constructor fails unless the modules' logits are reproduced. Knows nothing of text,
sampling or speculation.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ...errors import quote
from ...onnx_runtime.huge_pages import on_huge_pages
from ...onnx_runtime.logits_function import TorchFree
from ...onnx_runtime.pace import Pace
from ...onnx_runtime.session import open_session, value_of
from ...onnx_runtime.threads import most_threads, on_one_thread
from ...out_of_memory import release_memory
from ..base import Format, RewindableCache, Then
from ..lean_forward import MOST_FEW_ROWS, UnsupportedError
from ..model_runner import SAME_LOGITS, ModelRunner
from .cache import OnnxCache
from .call import Call, Chain, Doubling
from .families import require_supported
from .graph import ForwardGraph, build_forward, rope_names

_log = logging.getLogger(__name__)

_TOLERANCE: dict[Format, float] = {"float32": SAME_LOGITS, "int8": 0.2, "int4": 0.5}
"""See `_require_like`. Logits of another model would be 1.4 apart."""
_PROBED_AT_ONCE = 8
"""A prefill of many more rows may use other kernels; its rows are never computed again beside others."""
_PROBED_ROWS = 32
"""Rows that are compared to see if one is computed like several."""
_FEWEST_PROBED = 8
_PROBED_WITHIN_S = 0.25
"""Seconds after which no more than the fewest rows are compared."""
_TRIED_AGAIN_S = 60.0
_ROUND_UP = 1024
"""Rotations are computed for so many positions at once."""


class OnnxRunner(ModelRunner):
    """A runner for the families that the graph builder supports. Raises UnsupportedError for other models.

    `weights` is the format of the products' weights; `finer` are names of modules with 8 bits in place of 4.
    The model gives its own up once they are quantized, unless it `keeps_modules`. `threads` are those of a
    forward, by default torch's.
    """

    name = "onnx"

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        weights: Format = "float32",
        finer: Collection[str] = (),
        keeps_modules: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__(model, vocab_size=vocab_size)
        if any(weight.dtype != torch.float32 or not weight.is_cpu for weight in model.parameters()):
            raise UnsupportedError("the weights are not float32 on the CPU")
        require_supported(model)  # before anything is computed
        self.keeps_modules = keeps_modules or weights == "float32"
        wanted = self._modules_sample()  # before the model's own weights are freed
        self.graph: ForwardGraph = build_forward(
            model, self.vocab_size, weights, finer=finer, frees=not self.keeps_modules
        )
        self.weights: Format = weights
        self._caches: WeakSet[OnnxCache] = WeakSet()
        self._caches_lock = threading.Lock()  # conversations begin while another one is answered
        self.threads: int | None = threads or most_threads()
        self.session: Any = self._opened()
        self._pace = Pace()
        self._chosen_at = time.monotonic()
        body: Any = model.model
        self._rotary = body.rotary_emb
        self._constants: dict[str, Any] = {}
        self._rotations = 0
        self._logits: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        weights_of_steps = self.graph.weights.values()
        counted = {part.data_ptr() for part in (*model.parameters(), *weights_of_steps) if not part.is_meta}
        embedding = [part for part in self.graph.embedding.values() if part.data_ptr() not in counted]
        self.step_bytes: int | None = sum(weight.nbytes for weight in weights_of_steps)
        self._copied_bytes = self.step_bytes + sum(part.nbytes for part in embedding)
        self._doubling = Doubling.NONE
        self.same_rows = self._find_doubling()
        self._require_like(wanted, _TOLERANCE[weights])

    def new_cache(self) -> OnnxCache:
        """See Runner.new_cache."""
        cache = OnnxCache(self.graph.layers, self.graph.kv_heads, self.graph.head_dim)
        with self._caches_lock:
            self._caches.add(cache)
        return cache

    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        stored = cast(OnnxCache, cache)
        rows = ids.shape[0]
        end = stored.length + rows
        if end >= stored.capacity:
            stored.reserve(end + 1)  # the second of a doubled row lies after the last
        call = stored.calls.get((rows, last_rows or rows))
        if call is None:
            call = self._call(stored, rows, last_rows or rows)
        started = time.perf_counter()
        logits = call.run(ids, end)
        if rows <= MOST_FEW_ROWS:
            self._pace.note(rows, end, time.perf_counter() - started)
        stored.length = end
        return logits if then is None else _applied(then, logits)

    def chain(self, cache: RewindableCache, ids: Tensor, thens: Iterable[Then]) -> None:
        """See Runner.chain. What a forward from Python costs beside its computation, later ones do not."""
        stored = cast(OnnxCache, cache)
        calls: Iterator[Call] = iter(())
        for at, then in enumerate(thens):
            if at == 0:
                ids = self.forward(stored, ids, last_rows=1, then=then)
                continue
            call = next(calls, None)
            if call is None:
                calls = self._chain(stored)
                call = next(calls)
            logits = call.run_in_place(ids)
            stored.length += 1
            ids = _applied(then, logits)

    @property
    def unsettled(self) -> bool:
        """See Runner.unsettled. Fewer threads than there might be are to be tried again now and then."""
        limited = cast(int, self.threads) < most_threads()
        return self._pace.slow or (limited and time.monotonic() - self._chosen_at > _TRIED_AGAIN_S)

    def use_threads(self, threads: int) -> None:
        """See Runner.use_threads."""
        self._pace = Pace()
        self._chosen_at = time.monotonic()
        if threads == self.threads:
            return
        before = self.threads
        # The old session first gives its packed weights back, which the caches' forwards hold too.
        self.session = None
        with self._caches_lock:
            for cache in self._caches:
                cache.unbind()
        try:
            self.threads = threads
            self.session = self._opened()
        except Exception as error:  # as many as before were possible
            _log.warning("Forwards stay on %s threads: %s", before, quote(error))
            release_memory(error)
            self.threads = before
            self.session = self._opened()
        self.same_rows = self._find_doubling()

    def _opened(self) -> Any:
        with on_huge_pages():
            return open_session(self.graph.proto, self.graph.weights, threads=self.threads)

    def _call(self, cache: OnnxCache, rows: int, kept: int) -> Call:
        """A forward bound to the cache's buffers. It is kept there if it has few rows."""
        call = self._bound(cache, rows, kept)
        if rows <= MOST_FEW_ROWS:
            cache.calls[rows, kept] = call
        return call

    def _chain(self, cache: OnnxCache) -> Iterator[Call]:
        """Forwards over a row, bound to the cache's buffers: one or more, as far as there is room."""
        cache.reserve(cache.length + 2)  # the second of a doubled row lies after the last
        if cache.chain is None:
            cache.chain = Chain()
        calls = cache.chain.start(cache.length, lambda positions: self._bound(cache, 1, 1, positions))
        return islice(calls, cache.capacity - cache.length - 1)

    def _bound(self, cache: OnnxCache, rows: int, kept: int, positions: Tensor | None = None) -> Call:
        if cache.capacity > self._rotations:
            self._compute_rotations(cache.capacity)
        if not cache.values:
            cache.values = [value_of(buffer[None]) for layer in cache.states for buffer in layer]
        return Call(
            self.session,
            cache.values,
            self._constants,
            *self._logits_buffer(rows, kept),
            rows,
            self._doubling,
            positions,
        )

    def _logits_buffer(self, rows: int, kept: int) -> tuple[Tensor, Tensor]:
        """A buffer for the logits, and the part of it [kept, vocab] that counts; of few rows the same in each
        call.
        """
        if rows > MOST_FEW_ROWS:
            buffer = torch.empty(kept, self.vocab_size)
            return buffer, buffer
        needed = 2 if kept == 1 and self._doubling == Doubling.ALL else kept
        if (needed, kept) not in self._logits:
            buffer = torch.empty(needed, self.vocab_size)
            self._logits[needed, kept] = buffer, buffer[:kept]
        return self._logits[needed, kept]

    @torch.inference_mode()
    def _compute_rotations(self, positions: int) -> None:
        """Compute cos and sin of `positions` positions or more, as the model does."""
        self._rotations = -(-positions // _ROUND_UP) * _ROUND_UP
        where = torch.arange(self._rotations)[None]
        by_kind = isinstance(self._rotary.rope_type, dict)
        constants = dict(self.graph.embedding)
        for kind in self.graph.rope_kinds:
            tables = self._rotary(torch.empty(1), where, *([kind] if by_kind else []))
            for name, table in zip(rope_names(kind), tables, strict=True):
                constants[name] = table[0, :, : self.graph.head_dim // 2].contiguous()
        self._constants = {name: value_of(tensor) for name, tensor in constants.items()}

    def _find_doubling(self) -> bool:
        """Find the smallest part of the forward that must compute a single row twice, so that its logits are
        those of the same row among others. Returns False if there is none.
        """
        ids = torch.arange(1, 3 + _PROBED_ROWS) * 7919 % self.vocab_size
        cache = self._probed_cache(ids)
        together = torch.cat([self.forward(cache, part).clone() for part in ids[2:].split(_PROBED_AT_ONCE)])
        for doubling in Doubling:
            self._doubling = doubling
            if all(self._equal_rows(ids, split, together) for split in ([1] * _PROBED_ROWS, [2, 3, 5, 7])):
                return True
        return False

    def _equal_rows(self, ids: Tensor, split: Sequence[int], together: Tensor) -> bool:
        """Return True if forwards of these numbers of rows give the logits of rows `together`, as far as they
        are computed within _PROBED_WITHIN_S.
        """
        started = time.monotonic()
        cache = self._probed_cache(ids)
        for done, part in enumerate(ids[2 : 2 + sum(split)].split(list(split))):
            start = cache.length - 2
            logits = self.forward(cache, part)
            if not torch.equal(logits, together[start : start + part.shape[0]]):
                return False
            if done >= _FEWEST_PROBED and time.monotonic() - started > _PROBED_WITHIN_S:
                break
        return True

    def _probed_cache(self, ids: Tensor) -> OnnxCache:
        """A cache with the first two ids, which no doubling changes."""
        cache = self.new_cache()
        self.forward(cache, ids[:2])
        return cache


def _applied(then: Then, logits: Tensor) -> Any:
    """Return then(logits). What torch computes, it computes on one thread."""
    return then(logits) if isinstance(then, TorchFree) else on_one_thread(then, logits)
