"""Distributions on the host, from logits: on ONNX Runtime where it is installed, else by torch.

Right after a forward, when the CPU's caches hold weights, an operation of torch takes 20 µs and more. A
session on ONNX Runtime computes temperature, softmax and the sums of blocks in the time of one. Never sees a
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..onnx_runtime.packages import obstacle
from .filters import SamplingParams, probabilities
from .host_draw import block_size, block_sums, draw_on_host

_MOST_BINDINGS = 64
"""Buffers of logits that a session stays bound to. Runners reuse theirs; other logits are bound once."""


class HostRow:
    """One distribution: p float32 [vocab], with the sums of its blocks if they are known."""

    __slots__ = ("probs", "sums")

    def __init__(self, probs: np.ndarray, sums: np.ndarray | None = None) -> None:
        self.probs = probs
        self.sums = sums

    def draw(self, uniform: float) -> int:
        """Draw an id with a uniform in (0, 1)."""
        return draw_on_host(self.probs, uniform, self.sums)

    def draw_residual(self, q: HostRow, uniform: float) -> int:
        """Draw an id from max(p − q, 0), or from p if that is all zero (Leviathan et al. 2023, 2.3)."""
        rest = self.probs - q.probs
        np.maximum(rest, 0, out=rest)
        return self._draw_rest(rest, uniform)

    def draw_without(self, draft: int, uniform: float) -> int:
        """Draw an id from the residual where q is one-hot at `draft`."""
        rest = self.probs.copy()
        rest[draft] = 0
        return self._draw_rest(rest, uniform)

    def _draw_rest(self, rest: np.ndarray, uniform: float) -> int:
        sums = block_sums(rest)
        return draw_on_host(rest, uniform, sums) if sums.any() else self.draw(uniform)


@dataclass(frozen=True, slots=True)
class _Bound:
    """A session bound to a buffer of logits, and the rows that it writes."""

    session: Any
    binding: Any
    rows: list[HostRow]


class HostRows:
    """The distributions of an answer's settings.

    `slot` names a place for the result, which the next call for the same slot may overwrite.
    """

    def __init__(self, params: SamplingParams) -> None:
        self._params = params
        self._on_onnx = params.unfiltered and obstacle() is None
        self._inverse = torch.tensor([1 / params.temperature if self._on_onnx else 1.0])
        self._bindings: dict[tuple[int, int, int], _Bound] = {}

    def __call__(self, logits: Tensor, slot: int) -> list[HostRow]:
        """Return the distribution of each row of logits [rows, vocab]."""
        if not self._on_onnx or logits.dtype != torch.float32 or not logits.is_contiguous():
            return [HostRow(row) for row in probabilities(logits, self._params).numpy()]
        rows = logits.shape[0]
        key = logits.data_ptr(), rows, slot
        bound = self._bindings.get(key)
        if bound is None:
            bound = self._bind(logits, key)
        bound.session.run_with_iobinding(bound.binding)
        return bound.rows

    def _bind(self, logits: Tensor, key: tuple[int, int, int]) -> _Bound:
        if len(self._bindings) >= _MOST_BINDINGS:
            self._bindings.clear()
        rows, vocab = logits.shape
        session = _softmax_session(vocab)
        probs, sums = torch.empty(rows, vocab), torch.empty(rows, -(-vocab // block_size(vocab)))
        binding = session.io_binding()
        for name, tensor in (("logits", logits), ("inverse_temperature", self._inverse)):
            binding.bind_input(name, "cpu", 0, np.float32, list(tensor.shape), tensor.data_ptr())
        for name, tensor in (("probs", probs), ("sums", sums)):
            binding.bind_output(name, "cpu", 0, np.float32, list(tensor.shape), tensor.data_ptr())
        views = zip(probs.numpy(), sums.numpy(), strict=True)  # which keep the tensors
        bound = self._bindings[key] = _Bound(session, binding, [HostRow(*row) for row in views])
        return bound


@lru_cache
def _softmax_session(vocab: int) -> Any:
    """A session: logits [rows, vocab] and 1 / temperature [1] → probs [rows, vocab], sums [rows, blocks]."""
    from onnx import TensorProto

    from ..onnx_runtime.builder import GraphBuilder
    from ..onnx_runtime.session import open_session

    size = block_size(vocab)
    blocks = -(-vocab // size)
    graph = GraphBuilder()
    graph.input("logits", TensorProto.FLOAT, ["rows", vocab])
    graph.input("inverse_temperature", TensorProto.FLOAT, [1])
    scaled = graph.node("Mul", ["logits", "inverse_temperature"], "scaled")
    probs = graph.node("Softmax", [scaled], "probs", axis=-1)
    if blocks * size > vocab:
        pads = graph.constant("pads", [0, 0, 0, blocks * size - vocab], np.int64)
        probs = graph.node("Pad", [probs, pads], "padded")
    shape = graph.constant("shape", [0, blocks, size], np.int64)
    axis = graph.constant("axis", [2], np.int64)
    graph.node("ReduceSum", [graph.node("Reshape", [probs, shape], "blocks"), axis], "sums", keepdims=0)
    graph.output("probs", TensorProto.FLOAT, ["rows", vocab])
    graph.output("sums", TensorProto.FLOAT, ["rows", blocks])
    return open_session(graph.model(), threads=1)
