"""Functions of logits that ONNX Runtime computes in one run, between buffers that never move.

Right after a forward, when the CPU's caches hold weights, an operation called from Python takes 10 to 50 µs,
whatever its size. Can be imported without onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class BoundSession:
    """A session with an input `logits`, and the tensors that its other inputs and its outputs lie in."""

    session: Any
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


class TorchFree:
    """A function of logits that computes nothing with torch."""

    __call__: Callable[[Tensor], Any]


class LogitsFunction(TorchFree):
    """A function of logits [rows, vocab]. Each call returns the same `result`, in which values may differ.

    `bound` returns what computes it for logits of a width. Logits that lie where those of the call before did
    are read there; float32 ones are never copied.
    """

    def __init__(self, bound: Callable[[int], BoundSession], result: Tensor | None = None) -> None:
        self._bound_for = bound
        self._result = result
        self._given: Tensor | None = None
        self._bound: BoundSession | None = None

    def __call__(self, logits: Tensor) -> Tensor | None:
        """Compute the function."""
        if logits is not self._given:
            self._take(logits)
        self._session.run_with_iobinding(self._binding)
        return self._result

    def _take(self, logits: Tensor) -> None:
        """Read `logits` from now on."""
        from .session import value_of

        if self._bound is None:
            self._bound = self._bound_for(logits.shape[-1])
            self._session = self._bound.session
            self._binding = self._session.io_binding()
            for name, tensor in self._bound.inputs.items():
                self._binding.bind_ortvalue_input(name, value_of(tensor))
            for name, tensor in self._bound.outputs.items():
                self._binding.bind_ortvalue_output(name, value_of(tensor))
        self._read = readable = logits.to(torch.float32).contiguous()  # kept: a binding has addresses only
        self._binding.bind_ortvalue_input("logits", value_of(readable))
        # What was converted is not where the next logits will be.
        self._given = logits if readable is logits else None
