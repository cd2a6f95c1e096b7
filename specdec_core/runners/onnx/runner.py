"""The ONNX Runtime runner: a model's forward as one graph without Python between its operations, on the CPU.

A row's logits are the same bit for bit whatever the number of rows beside it, as far as the CPU's kernels
allow. In float32 the constructor fails unless the modules' logits are reproduced. Knows nothing of text,
sampling or speculation.
"""

from __future__ import annotations

from typing import Any, cast
from weakref import WeakKeyDictionary

import onnxruntime
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..base import RewindableCache, Then
from ..lean_forward import MOST_FEW_ROWS, UnsupportedError
from ..model_runner import ModelRunner
from .cache import OnnxCache
from .call import Call, Doubling
from .graph import EMBEDDING, ForwardGraph, build_forward, rope_names
from .products import Format

_ROUND_UP = 1024
"""Rotations are computed for so many positions at once."""


class OnnxRunner(ModelRunner):
    """A runner for the families that the graph builder supports. Raises UnsupportedError for other models.

    `weights` is the format of the products' weights. `same_rows` is True if a row's logits did not depend on
    the number of rows beside it when that was tried.
    """

    name = "onnx"

    def __init__(
        self, model: PreTrainedModel, *, vocab_size: int | None = None, weights: Format = "float32"
    ) -> None:
        super().__init__(model, vocab_size=vocab_size)
        if any(weight.dtype != torch.float32 or not weight.is_cpu for weight in model.parameters()):
            raise UnsupportedError("the weights are not float32 on the CPU")
        self.graph: ForwardGraph = build_forward(model, self.vocab_size, weights)
        self.session: Any = _session(self.graph, torch.get_num_threads())
        body: Any = model.model
        self._rotary = body.rotary_emb
        self._embedding: Tensor = body.embed_tokens.weight.data
        self._constants: dict[str, Tensor] = {}
        self._rotations = 0
        self._logits: dict[int, Tensor] = {}
        self._calls: WeakKeyDictionary[OnnxCache, dict[tuple[int, int], Call]] = WeakKeyDictionary()
        self._doubling = Doubling.NONE
        self.same_rows: bool = self._find_doubling()
        if weights == "float32":
            self._require_same_logits()

    def new_cache(self) -> OnnxCache:
        """See Runner.new_cache."""
        return OnnxCache(self.graph.layers, self.graph.kv_heads, self.graph.head_dim)

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        stored = cast(OnnxCache, cache)
        rows = ids.shape[0]
        end = stored.length + rows
        stored.reserve(end + 1)  # the second of a doubled row lies after the last
        self._reserve_rotations(stored.capacity)
        logits = self._call(stored, rows, last_rows or rows).run(ids, end)
        stored.length = end
        return logits if then is None else then(logits)

    def _call(self, cache: OnnxCache, rows: int, kept: int) -> Call:
        calls = self._calls.setdefault(cache, {})
        call = calls.get((rows, kept))
        if call is None or call.states is not cache.states or call.constants is not self._constants:
            logits = self._logits_buffer(rows, kept)
            call = Call(self.session, cache.states, self._constants, logits, rows, kept, self._doubling)
            if rows <= MOST_FEW_ROWS:
                calls[rows, kept] = call
        return call

    def _logits_buffer(self, rows: int, kept: int) -> Tensor:
        """A buffer [kept, vocab] for the logits; of few rows the same in each call."""
        needed = 2 if kept == 1 and self._doubling == Doubling.ALL else kept
        if rows > MOST_FEW_ROWS:
            return torch.empty(needed, self.vocab_size)
        if rows not in self._logits or self._logits[rows].shape[0] < needed:
            self._logits[rows] = torch.empty(max(rows, needed), self.vocab_size)
        return self._logits[rows][:needed]

    def _reserve_rotations(self, positions: int) -> None:
        """Compute cos and sin of `positions` positions or more, as the model does."""
        if positions <= self._rotations:
            return
        self._rotations = -(-positions // _ROUND_UP) * _ROUND_UP
        where = torch.arange(self._rotations)[None]
        by_kind = isinstance(self._rotary.rope_type, dict)
        constants = {EMBEDDING: self._embedding}
        for kind in self.graph.rope_kinds:
            tables = self._rotary(torch.empty(1), where, *([kind] if by_kind else []))
            for name, table in zip(rope_names(kind), tables, strict=True):
                constants[name] = table[0, :, : self.graph.head_dim // 2].contiguous()
        self._constants = constants

    def _find_doubling(self) -> bool:
        """Find the smallest part of the forward that must compute a single row twice, so that its logits are
        those of the same row among others. Returns False if there is none.
        """
        ids = torch.arange(1, 12) * 7919 % self.vocab_size
        together = self._logits_by(ids, 8)
        for doubling in Doubling:
            self._doubling = doubling
            self._calls.clear()
            if all(self._equal_start(self._logits_by(ids, rows), together) for rows in (1, 2, 3, 5)):
                return True
        return False

    def _logits_by(self, ids: Tensor, rows: int) -> Tensor:
        """Logits of the rows after the third of ids, in two forwards of `rows` or fewer."""
        cache = self.new_cache()
        self.forward(cache, ids[:3])
        return torch.cat([self.forward(cache, part).clone() for part in ids[3:].split(rows)[:2]])

    @staticmethod
    def _equal_start(logits: Tensor, together: Tensor) -> bool:
        return torch.equal(logits, together[: logits.shape[0]])


def _session(graph: ForwardGraph, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised as exceptions
    names = list(graph.weights)
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(graph.weights[name].numpy()) for name in names]
    options.add_external_initializers(names, values)
    return onnxruntime.InferenceSession(
        graph.proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
