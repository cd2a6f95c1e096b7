"""The CUDA-graph runner: one captured graph for each number of rows and length bucket.

What is captured is StaticRunner's forward; a replay costs one launch where an eager forward costs hundreds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .eager import EagerRunner
from .static import StaticRunner

_TOLERANCE = 0.05
"""Of the logits' spread, between bfloat16 kernels of different shapes."""


@dataclass(slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    ids: Tensor  # [rows]
    positions: Tensor  # [rows]
    logits: Tensor  # [rows, vocab]


class CudaGraphRunner(StaticRunner):
    """Graphs are captured when they are first needed, and again after the buffers have grown."""

    name = "cuda graph"

    def __init__(self, model: torch.nn.Module, *, vocab_size: int | None = None) -> None:
        self._graphs: dict[tuple[int, int], _Captured] = {}
        self._pool = None
        super().__init__(model, vocab_size=vocab_size)
        self._require_same_logits()

    def _allocate(self, capacity: int) -> None:
        self._graphs.clear()
        super()._allocate(capacity)

    def _decode(self, ids: Tensor, start: int, bucket: int) -> Tensor:
        captured = self._graphs.get((ids.shape[0], bucket))
        if captured is None:
            captured = self._capture(ids.shape[0], start, bucket)
        captured.ids.copy_(ids)
        torch.arange(start, start + ids.shape[0], out=captured.positions)
        captured.graph.replay()
        return captured.logits

    def _capture(self, rows: int, start: int, bucket: int) -> _Captured:
        """Runs the forward a few times on a side stream, as capture asks for, then records it."""
        ids = torch.zeros(rows, dtype=torch.int64, device=self.device)
        positions = torch.arange(start, start + rows, device=self.device)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._compute(ids, positions, bucket, 0)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = self._compute(ids, positions, bucket, 0)
        self._pool = self._pool or graph.pool()
        captured = _Captured(graph, ids, positions, logits)
        self._graphs[rows, bucket] = captured
        return captured

    @torch.inference_mode()
    def _require_same_logits(self) -> None:
        """Prefill, then one row and several, replayed twice, against an eager forward over the whole."""
        ids = torch.arange(1, 33, device=self.device) * 7919 % self.vocab_size
        cache = self.new_cache()
        self.forward(cache, ids[:25])
        for _ in range(2):
            got = [self.forward(cache, part).float().clone() for part in ids[25:].split([1, 1, 5])]
            cache.rewind(25)
        fresh = EagerRunner.new_cache(self)
        causal = torch.ones(32, 32, dtype=torch.bool, device=self.device).tril_()
        mask = causal.repeat(self._group, 1)[None, None]
        masks = {"full_attention": mask, "sliding_attention": mask}
        wanted = self.model(
            input_ids=ids[None],
            attention_mask=masks if "sliding_attention" in self._layer_types else mask,
            past_key_values=fresh,
            use_cache=True,
        ).logits[0, 25:, : self.vocab_size]
        got, wanted = torch.cat(got), wanted.float()
        known = wanted.isfinite()  # a shortened head has no logits for the rest
        worst = ((got - wanted)[known].abs().max() / wanted[known].std()).item()
        if not worst < _TOLERANCE:
            raise RuntimeError(f"replayed logits differ from eager ones by {worst:.2g} of their spread")
