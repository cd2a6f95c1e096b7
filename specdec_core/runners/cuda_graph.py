"""The CUDA-graph runner: a captured graph for each number of rows, length bucket and use of the logits.

What is captured is StaticRunner's forward with the sampling that is handed to it; a replay costs one launch
where an eager forward costs hundreds. Should a graph fail while an answer is made, it goes on without.
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

from .base import Then
from .kv_cache import KVCache
from .static import StaticRunner

_TOLERANCE = 0.1
"""Of the logits' spread, for `logit_difference` between bfloat16 kernels of different shapes."""

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], object], Tensor]]
"""A function that computes in place → what repeats it, and its result, which every repetition overwrites."""


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures: cuBLAS keeps a workspace of 32 MB for every stream that it was used on."""
    return torch.cuda.Stream(device)


class CudaCapture:
    """Records functions as CUDA graphs that share one pool of memory, as long as there are any."""

    def __init__(
        self,
        device: torch.device,
        replay: Callable[[torch.cuda.CUDAGraph], object] = torch.cuda.CUDAGraph.replay,
    ) -> None:
        self._device = device
        self._replay = replay
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Runs it a few times on a side stream, as capture asks for, then records it there."""
        with torch.cuda.device(self._device):
            side, current = _side_stream(self._device), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(3):
                    function()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # A pool ends with its last graph, and torch refuses to capture into one that has ended.
            pool = next((held.pool() for held in self._graphs), None)
            try:
                # Other threads may go on, a load among them: only this one must not allocate in between.
                with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                    result = function()
            finally:
                # A capture that fails leaves torch on the side stream, which nothing else waits for.
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
    """Graphs are captured when they are first needed, and again after the buffers have grown."""

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
        """Captures anew what is needed from now on, in this way."""
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
                # Nothing is lost: what a graph writes, the forward without it writes again.
                self._graphs.clear()
                what = f"{type(error).__name__}: {error}".split("\n")[0]
                self.reason = f"a graph failed during an answer, and none is used since: {what}"
        return super()._decode(ids, start, bucket, last_rows, then)

    def _replayed(self, ids: Tensor, start: int, bucket: int, last_rows: int, then: Then | None) -> Tensor:
        rows = ids.shape[0]
        captured = self._graphs.get((rows, bucket, last_rows, then))
        if captured is None:
            held, positions = ids.clone(), self._positions(start, start + rows)
            replay, result = self._capture(lambda: self._compute(held, positions, bucket, last_rows, then))
            captured = _Captured(replay, held, positions, result)
            self._graphs[rows, bucket, last_rows, then] = captured
        captured.ids.copy_(ids)
        torch.arange(start, start + rows, out=captured.positions)
        captured.replay()
        return captured.result

    @torch.inference_mode()
    def _require_same_logits(self) -> None:
        """Prefill, then one row and several, replayed twice, against the modules' forward over the whole."""
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
            KVCache(self.layer_count),
            ids,
            7,
            attention_mask=masks if "sliding_attention" in self._layer_types else mask,
        )
        found = logit_difference(torch.cat(got), wanted.float())
        if not found < _TOLERANCE:
            raise RuntimeError(f"replayed logits differ from eager ones by {found:.2g} of their spread")


def logit_difference(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference [rows, vocab], as a share of the wanted logits' spread.

    Not the largest one: of a hundred thousand bfloat16 logits near 20 some are always a whole 0.125 apart.
    """
    known = wanted.isfinite()  # a shortened head has no logits for the rest
    return ((got - wanted)[known].square().mean().sqrt() / wanted[known].std()).item()
