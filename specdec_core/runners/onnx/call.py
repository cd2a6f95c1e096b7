"""A forward's bound inputs and outputs, and the ways to compute a single row like one of several.

ONNX Runtime's kernels have paths of their own for one row, which round in another way: a draft that is
verified among others would have other logits than the same token decoded alone. Where that is so, a single
row is computed twice, beside itself, in as small a part of the forward as is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import count
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ...onnx_runtime.session import value_of
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


def _rows_inputs(rows: int, fed: int, attended: int, kept: int, computed: int) -> dict[str, Any]:
    """The inputs that say which rows attention computes, and whose logits are computed."""
    inputs = {
        OWN_ROWS: torch.tensor([fed]),
        ATTENTION_ROWS: torch.arange(attended).clamp(max=fed - 1),
        KEPT_ROWS: torch.arange(rows - computed, rows).clamp(min=rows - kept),
    }
    return {name: value_of(tensor) for name, tensor in inputs.items()}


class Call:
    """The inputs and outputs of a forward over `rows`, bound to a cache's buffers.

    `states` are keys and values of each layer as OrtValues, in the order of `state_names`, `constants` the
    inputs that do not change, by name. Each run writes `buffer` [kept, or 2 for a doubled single row, vocab],
    of which `logits` is the part [kept, vocab]. `positions` int32 [2] is where the call reads the number of
    positions after it, by default a tensor of its own.
    """

    def __init__(
        self,
        session: Any,
        states: Sequence[Any],
        constants: Mapping[str, Any],
        buffer: Tensor,
        logits: Tensor,
        rows: int,
        doubling: Doubling,
        positions: Tensor | None = None,
    ) -> None:
        self.fed = fed = 2 if rows == 1 and doubling >= Doubling.LAYERS else rows
        """Rows that are computed: a single one may be fed twice."""
        attended = 2 if fed == 1 and doubling >= Doubling.ATTENTION else fed
        self.beyond = attended - rows
        """Positions past the last that are written, whose keys and values the next forward overwrites."""
        self.logits = logits
        self._session = session
        self._options = _frees_memory() if rows > MOST_FEW_ROWS else None
        self._binding = session.io_binding()
        if positions is None:
            positions = torch.zeros(2, dtype=torch.int32)
        self._counts = positions.numpy()  # a tensor is indexed in ten times as long
        self._rows = rows
        self._fed_ids = np.zeros(fed, np.int64)
        self._own_ids = value_of(torch.from_numpy(self._fed_ids)[None])
        self._copied_ids: Tensor | None = None
        self._bound_ids: Tensor | None = None
        inputs = {
            IDS: self._own_ids,
            **_rows_inputs(rows, fed, attended, logits.shape[0], buffer.shape[0]),
            LAST_POSITION: value_of(positions[:1]),
            POSITIONS: value_of(positions[1]),
            **constants,
        }
        self._kept = *inputs.values(), *states, value_of(buffer[None])  # a binding has addresses only
        for name, value in inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        names = (pair for at in count() for pair in state_names(at))
        for value, (past, present) in zip(states, names, strict=False):
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
        self._binding.bind_ortvalue_output(LOGITS, self._kept[-1])

    def run(self, ids: Tensor, end: int) -> Tensor:
        """Feed ids [rows], after which the cache holds `end` positions. Return the logits [kept, vocab]."""
        end += self.beyond
        self._counts[0] = end - 1
        self._counts[1] = end
        return self.run_in_place(ids)

    def run_in_place(self, ids: Tensor) -> Tensor:
        """Feed ids [rows] at the positions that `positions` tells. Return the logits [kept, vocab]."""
        if ids is not self._bound_ids:
            self._take(ids)
        self._session.run_with_iobinding(self._binding, self._options)
        return self.logits

    def _take(self, ids: Tensor) -> None:
        """Copy ids, or, if the same tensor came before, read them where they are from now on: a binding costs
        more than a copy.
        """
        if ids is self._copied_ids and self._can_be_read(ids):
            self._binding.bind_ortvalue_input(IDS, value_of(ids[None]))
            self._bound_ids = ids
            return
        if self._bound_ids is not None:
            self._binding.bind_ortvalue_input(IDS, self._own_ids)
            self._bound_ids = None
        self._fed_ids[:] = ids.numpy()  # a single one fills both places where it is fed twice
        self._copied_ids = ids

    def _can_be_read(self, ids: Tensor) -> bool:
        return self.fed == self._rows and ids.dtype == torch.int64 and ids.is_contiguous()


class Chain:
    """Forwards over a row each, in turn, whose positions are written all at once."""

    LENGTH = 16

    def __init__(self) -> None:
        self._positions = torch.zeros(self.LENGTH, 2, dtype=torch.int32)
        self._counts = self._positions.numpy()
        self._ahead = np.arange(self.LENGTH)[:, None] + [0, 1]
        self._calls: list[Call] = []

    def start(self, length: int, make: Callable[[Tensor], Call]) -> Iterator[Call]:
        """Yield the forwards after `length` positions. `make` returns one that reads its positions from a
        tensor; each is made when it is first needed.
        """
        if not self._calls:
            self._calls.append(make(self._positions[0]))
        np.add(self._ahead, length + self._calls[0].beyond, out=self._counts, casting="same_kind")
        yield from self._calls
        for positions in self._positions[len(self._calls) :]:
            self._calls.append(make(positions))
            yield self._calls[-1]
