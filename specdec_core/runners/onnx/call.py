"""A forward's bound inputs and outputs, and the ways to compute a single row like one of several.

ONNX Runtime's kernels have paths of their own for one row, which round in another way: a draft that is
verified among others would have other logits than the same token decoded alone. Where that is so, a single
row is computed twice, beside itself, in as small a part of the forward as is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from ..lean_forward import MOST_FEW_ROWS
from .graph import (
    ATTENTION_ROWS,
    IDS,
    KEPT_ROWS,
    LAST_POSITION,
    LOGITS,
    OWN_ROWS,
    POSITIONS,
    state_names,
)


class Doubling(IntEnum):
    """The part of the forward that computes a single row twice."""

    NONE = 0
    ATTENTION = 1
    LAYERS = 2
    ALL = 3


def _frees_memory() -> onnxruntime.RunOptions:
    """Options of a run that gives the memory of its intermediate results back: a prefill has large ones."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


class Call:
    """The inputs and outputs of a forward over `rows`, bound to a cache's buffers `states`.

    `constants` are the inputs that do not change, by name; `logits` [kept, or 2 for a doubled single row,
    vocab] is written by each run.
    """

    def __init__(
        self,
        session: Any,
        states: Tensor,
        constants: Mapping[str, Tensor],
        logits: Tensor,
        rows: int,
        kept: int,
        doubling: Doubling,
    ) -> None:
        self.states = states  # bindings hold addresses only
        self.fed = fed = 2 if rows == 1 and doubling >= Doubling.LAYERS else rows
        self._attended = 2 if fed == 1 and doubling >= Doubling.ATTENTION else fed
        self._beyond = self._attended - rows
        self._session = session
        self._options = _frees_memory() if rows > MOST_FEW_ROWS else None
        self._binding = session.io_binding()
        self._logits = logits[:kept]
        self._ids = torch.zeros(1, fed, dtype=torch.int64)
        self._present = torch.zeros(2, dtype=torch.int32)  # last position, positions
        # Views for the writes of each run: indexing a tensor takes ten times longer.
        self._fed_ids, self._counts = self._ids.numpy()[0], self._present.numpy()
        first = torch.zeros(1, dtype=torch.int64)
        self._inputs = {
            IDS: self._ids,
            LAST_POSITION: self._present[:1],
            POSITIONS: self._present[1],
            OWN_ROWS: torch.tensor([fed]),
            ATTENTION_ROWS: torch.arange(fed) if self._attended == fed else first.repeat(2),
            KEPT_ROWS: torch.arange(rows - logits.shape[0], rows).clamp(min=rows - kept),
            **constants,
        }
        for name, tensor in self._inputs.items():
            self._bind(self._binding.bind_input, name, tensor)
        for at, layer in enumerate(states):
            for (past, present), buffer in zip(state_names(at), layer, strict=True):
                self._bind(self._binding.bind_input, past, buffer[None])
                self._bind(self._binding.bind_output, present, buffer[None])
        self._bind(self._binding.bind_output, LOGITS, logits[None])

    def run(self, ids: Tensor, end: int) -> Tensor:
        """Feed ids [rows], after which the cache holds `end` positions. Return the logits [kept, vocab]."""
        self._fed_ids[:] = ids.numpy()  # a single one fills both places where it is doubled
        self._counts[0] = end + self._beyond - 1
        self._counts[1] = end + self._beyond
        self._session.run_with_iobinding(self._binding, self._options)
        return self._logits

    @staticmethod
    def _bind(bind: Any, name: str, tensor: Tensor) -> None:
        kind = tensor.numpy().dtype.type
        bind(name, "cpu", 0, kind, list(tensor.shape), tensor.data_ptr())
