"""Memory that ran out: recognition of the error, release of what is unreferenced, and a second try.

Knows nothing of models or sessions.
"""

from __future__ import annotations

import ctypes
import gc
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from .capture_streams import free_workspaces

_T = TypeVar("_T")

_WORDS = (
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN, whose workspaces torch does not allocate
    "Failed to allocate memory",  # ONNX Runtime
)


def out_of_memory(error: BaseException) -> bool:
    """True if the error means that memory ran out; torch raises a plain RuntimeError for it on the CPU, and
    for the CUDA driver and its libraries.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error) for words in _WORDS)


def release_memory(error: BaseException | None = None) -> None:
    """Free unreferenced memory; after a failure, also what only the frames of `error` refer to."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()
    if torch.cuda.is_available():
        free_workspaces()
        torch.cuda.empty_cache()
    # glibc does not return freed blocks of up to 32 MB to the system: hundreds of megabytes after a pair.
    with suppress(OSError, AttributeError, TypeError):  # another libc or system
        ctypes.CDLL(None).malloc_trim(0)


def with_second_try(step: Callable[[], _T], make_room: Callable[[], None]) -> _T:
    """Return what `step` returns. If memory runs out in it, make room and run it once more."""
    try:
        return step()
    except Exception as error:
        if not out_of_memory(error):
            raise
    # Outside of the except clause, since the frames of the error keep the tensors of the step.
    make_room()
    return step()
