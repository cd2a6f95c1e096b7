"""The CUDA-graph runner: a captured graph for each number of rows, length bucket and function of the logits.

A graph holds StaticRunner's forward and the sampling passed to it; a replay costs one launch where an eager
forward costs hundreds. If a graph fails during an answer, the answer goes on without graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import quote
from .base import Then
from .kv_cache import KVCache
from .static import StaticRunner

_TOLERANCE = 0.1
"""Of the logits' spread, for `logit_difference` between bfloat16 kernels of different shapes."""

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], object], Tensor]]
"""Captures a function that computes in place: returns its replay and its result, which replays overwrite."""


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures: cuBLAS keeps a workspace of 32 MB for every stream that it was used on."""
    return torch.cuda.Stream(device)


class CudaCapture:
    """Captures functions as CUDA graphs that share one memory pool while any of them is alive."""

    def __init__(
        self,
        device: torch.device,
        replay: Callable[[torch.cuda.CUDAGraph], object] = torch.cuda.CUDAGraph.replay,
    ) -> None:
        self._device = device
        self._replay = replay
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Run the function three times on a side stream, as capture requires, then capture it there."""
        with torch.cuda.device(self._device):
            side, current = _side_stream(self._device), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(3):
                    function()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # A pool ends with its last graph, and torch refuses to capture into one that has ended.
            pool = next((other.pool() for other in self._graphs), None)
            try:
                # Other threads, a load among them, may go on allocating.
                with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                    result = function()
            finally:
                # A failed capture leaves the thread on the side stream, with which nothing synchronizes.
                torch.cuda.set_stream(current)
        self._graphs.add(graph)
        return partial(self._replay, graph), result


@dataclass(slots=True)
class _Captured:
    replay: Callable[[], object]
    ids: Tensor  # [rows]
    positions: Tensor  # [rows]
    result: Tensor


class CudaGraphRunner(StaticRunner):
    """A static runner that captures each forward of few rows when it is first needed, and again after the
    buffers have grown.
    """

    name = "cuda graph"
    captures = True

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        why_modules: str | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._graphs: dict[tuple[int, int, int, Then | None], _Captured] = {}
        super().__init__(model, vocab_size=vocab_size, why_modules=why_modules)
        self._capture = capture or CudaCapture(self.device)
        self._require_same_logits()

    @property
    def captured(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def forget_graphs(self, capture: Capture) -> None:
        """Drop all graphs, and capture with `capture` from now on."""
        self._graphs.clear()
        self._capture = capture

    def _allocate(self, capacity: int) -> None:
        self._graphs.clear()
        super()._allocate(capacity)

    def _decode(self, ids: Tensor, start: int, bucket: int, last_rows: int, then: Then | None) -> Any:
        if self.reason is None:
            try:
                return self._replayed(ids, start, bucket, last_rows, then)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                # Nothing is lost: the uncaptured forward writes again what the graph may have written.
                self._graphs.clear()
                self.reason = f"a graph failed during an answer, and none is used since: {quote(error)}"
        return super()._decode(ids, start, bucket, last_rows, then)

    def _replayed(self, ids: Tensor, start: int, bucket: int, last_rows: int, then: Then | None) -> Tensor:
        rows = ids.shape[0]
        captured = self._graphs.get((rows, bucket, last_rows, then))
        if captured is None:
            buffer, positions = ids.clone(), self.positions(start, start + rows)
            replay, result = self._capture(lambda: self.compute(buffer, positions, bucket, last_rows, then))
            captured = _Captured(replay, buffer, positions, result)
            self._graphs[rows, bucket, last_rows, then] = captured
        captured.ids.copy_(ids)
        torch.arange(start, start + rows, out=captured.positions)
        captured.replay()
        return captured.result

    @torch.inference_mode()
    def _require_same_logits(self) -> None:
        """Compare prefill, one row and several, replayed twice, with the modules' forward over all rows."""
        ids = torch.arange(1, 33, device=self.device) * 7919 % self.vocab_size
        cache = self.new_cache()
        self.forward(cache, ids[:25])
        for _ in range(2):
            got = [self.forward(cache, part).float().clone() for part in ids[25:].split([1, 1, 5])]
            cache.rewind(25)
        if self.reason is not None:
            raise RuntimeError(self.reason)
        causal = torch.ones(32, 32, dtype=torch.bool, device=self.device).tril_()
        mask = causal.repeat(self._group, 1)[None, None]
        masks = {"full_attention": mask, "sliding_attention": mask}
        wanted = self._modules_logits(
            KVCache(self.stores),
            ids,
            7,
            attention_mask=masks if "sliding_attention" in self._layer_types else mask,
        )
        difference = logit_difference(torch.cat(got), wanted.float())
        if not difference < _TOLERANCE:
            raise RuntimeError(f"replayed logits differ from eager ones by {difference:.2g} of their spread")


def logit_difference(got: Tensor, wanted: Tensor) -> float:
    """Return the root mean square of the difference [rows, vocab] over the wanted logits' standard deviation.

    The maximum would not do: of a hundred thousand bfloat16 logits near 20 some are always 0.125 apart.
    """
    known = wanted.isfinite()  # a shortened head has no logits for the rest
    return ((got - wanted)[known].square().mean().sqrt() / wanted[known].std()).item()
