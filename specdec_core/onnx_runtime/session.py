"""Sessions of ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime
from onnx import ModelProto
from torch import Tensor

from .threads import choose_threads


def open_session(
    model: ModelProto, weights: Mapping[str, Tensor] | None = None, *, threads: int | None = None
) -> Any:
    """Return a session of the graph; `weights` are its constants that lie outside of it, by name.

    `threads` bounds those of a pool of its own.
    """
    options = onnxruntime.SessionOptions()
    choose_threads(options, threads)
    options.log_severity_level = 4  # failures are raised as exceptions
    if weights:
        values = [value_of(weight) for weight in weights.values()]
        options.add_external_initializers(list(weights), values)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def value_of(tensor: Tensor) -> Any:
    """Return an OrtValue over the memory of a contiguous tensor on the CPU. The object returned keeps the
    tensor; ONNX Runtime's own copies of it do not.
    """
    return onnxruntime.OrtValue.ortvalue_from_numpy(tensor.numpy())
