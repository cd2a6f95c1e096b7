"""The CUDA-graph runner: a captured graph for each number of rows, length bucket and function of the logits.

A graph holds StaticRunner's forward and the sampling passed to it; a replay costs one launch where an eager
forward costs hundreds. If a graph fails during an answer, the answer goes on without graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import quote
from ..out_of_memory import out_of_memory, release_memory
from .base import RewindableCache, Step, Then
from .cuda_capture import Capture, CudaCapture
from .kv_cache import KVCache
from .lean_forward import MOST_FEW_ROWS
from .static import ParkedCache, StaticRunner, bucket_for

_TOLERANCE = 0.1
"""Of the logits' spread, for `logit_difference` between bfloat16 kernels of different shapes."""


@dataclass(slots=True)
class _Captured:
    replay: Callable[[], object]
    ids: Tensor  # [rows]
    positions: Tensor  # [rows]
    result: Tensor


class CudaGraphRunner(StaticRunner):
    """A static runner that captures each forward of few rows when it is first needed or prepared, and again
    after the buffers have grown. Where memory runs out for a graph, it goes on without graphs.
    """

    name = "cuda graph"
    captures = True

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        why_modules: str | None = None,
        why_unfused: str | None = None,
        capture: Capture | None = None,
    ) -> None:
        self._graphs: dict[tuple[Step, int], _Captured] = {}
        self._made = False
        super().__init__(model, vocab_size=vocab_size, why_modules=why_modules, why_unfused=why_unfused)
        self._capture = capture or CudaCapture(self.device)
        self._require_same_logits()
        self._made = True

    @property
    def captured(self) -> int:
        """Graphs captured so far."""
        return len(self._graphs)

    def forget_graphs(self, capture: Capture) -> None:
        """Drop all graphs, and capture with `capture` from now on."""
        self._graphs.clear()
        self._capture = capture

    def drop_bare_graphs(self) -> None:
        """See Runner.drop_bare_graphs."""
        self._graphs = {key: graph for key, graph in self._graphs.items() if key[0].then is not None}

    @torch.inference_mode()
    def prepare(self, cache: RewindableCache, steps: Collection[Step], end: int) -> None:
        """See Runner.prepare. Captures for the bucket of `end` what is missing there. The few forwards that
        may still end in the bucket before it are computed uncaptured if the buffers grow. If memory runs out
        for larger buffers, it is left to the next forward to ask for them again.
        """
        end = min(end, self.context_length)
        bucket = bucket_for(end)
        if self.reason is not None or all((step, bucket) in self._graphs for step in steps):
            return
        cache = cast(ParkedCache, cache)
        failure: Exception | None = None
        grown = False
        try:
            self._bring_in(cache, end)
            grown = True
            for step in steps:
                start = max(cache.length, end - step.rows)
                if (step, bucket) not in self._graphs and start + step.rows <= end:
                    ids = torch.zeros(step.rows, dtype=torch.int64, device=self.device)
                    self._add_graph(step, bucket, ids, start)
        except Exception as error:
            failure = error
        if failure is None:
            return
        if grown:
            self._go_on_uncaptured(failure)
        elif out_of_memory(failure):
            release_memory(failure)
        else:
            raise failure

    def _allocate(self, capacity: int) -> None:
        self._graphs.clear()
        super()._allocate(capacity)

    def _decode(self, ids: Tensor, start: int, bucket: int, last_rows: int, then: Then | None) -> Any:
        step = Step(ids.shape[0], last_rows, then)
        if self.reason is None and self._is_worth_a_graph(step, bucket, start):
            failure: Exception | None = None
            try:
                return self._replayed(step, bucket, ids, start)
            except Exception as error:
                failure = error
            # Nothing is lost: the uncaptured forward writes again what the graph may have written.
            self._go_on_uncaptured(failure)
        return super()._decode(ids, start, bucket, last_rows, then)

    def _is_worth_a_graph(self, step: Step, bucket: int, start: int) -> bool:
        """False for a step of an answer that is not captured yet if the bucket ends within a round or two."""
        is_in_answer = self._made and step.then is not None
        return (
            not is_in_answer or (step, bucket) in self._graphs or bucket - start - step.rows >= MOST_FEW_ROWS
        )

    def _go_on_uncaptured(self, error: Exception) -> None:
        """Give up graphs for good. While the runner is made, errors are raised, but for a lack of memory."""
        short_of_memory = out_of_memory(error)
        if not (self._made or short_of_memory):
            raise error
        self._graphs.clear()
        self.captures = False
        if short_of_memory:
            self.reason = f"memory ran out for a graph, and none is used since: {quote(error)}"
            release_memory(error)
        else:
            self.reason = f"a graph failed during an answer, and none is used since: {quote(error)}"

    def _replayed(self, step: Step, bucket: int, ids: Tensor, start: int) -> Tensor:
        captured = self._graphs.get((step, bucket)) or self._add_graph(step, bucket, ids, start)
        captured.ids.copy_(ids)
        torch.arange(start, start + step.rows, out=captured.positions)
        captured.replay()
        return captured.result

    def _add_graph(self, step: Step, bucket: int, ids: Tensor, start: int) -> _Captured:
        buffer, positions = ids.clone(), self.positions(start, start + step.rows)
        replay, result = self._capture(
            lambda: self.compute(buffer, positions, bucket, step.last_rows, step.then)
        )
        captured = self._graphs[step, bucket] = _Captured(replay, buffer, positions, result)
        return captured

    @torch.inference_mode()
    def _require_same_logits(self) -> None:
        """Compare prefill, one row and several, replayed twice, with the modules' forward over all rows."""
        ids = torch.arange(1, 33, device=self.device) * 7919 % self.vocab_size
        cache = self.new_cache()
        self.forward(cache, ids[:25])
        for _ in range(2):
            got = [self.forward(cache, part).float().clone() for part in ids[25:].split([1, 1, 5])]
            cache.rewind(25)
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
