"""Access to the Triton kernels, where they can run."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .lean_forward import UnsupportedError

_LEAST_CAPABILITY = (8, 0)
"""Before it the kernels need more registers and shared memory than there are."""


def kernels_for(device: torch.device) -> Any:
    """Return the module with the kernels. Raises UnsupportedError without Triton, or if they do not run on
    the device: a GPU that is too old, or a CPU outside of Triton's interpreter.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        least = ".".join(map(str, _LEAST_CAPABILITY))
        raise UnsupportedError(f"the GPU has a compute capability below {least}")
    try:
        kernels: Any = importlib.import_module(".kernels", __package__)
    except ImportError as error:
        raise UnsupportedError("Triton is not installed") from error
    if device.type != "cuda" and not kernels.INTERPRETED:
        raise UnsupportedError("it is not on a GPU")
    return kernels


def power_of_two(size: int) -> int:
    """Return the smallest power of two that is not below `size`."""
    return 1 << max(0, size - 1).bit_length()
