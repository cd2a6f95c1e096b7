"""Threads of a session of ONNX Runtime. Can be imported without onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_SPIN_US = 100
"""Microseconds that a session's threads wait for more work without sleeping: longer than between the
products of a forward, shorter than a forward, so that a drafter's threads leave the cores to the target's.
"""

_before: int | None = None
"""Torch's number of threads while it computes on one."""


def most_threads() -> int:
    """Return torch's number of threads, the one outside of `on_one_thread` while that is in progress."""
    return _before or torch.get_num_threads()


def on_one_thread(function: Callable[[Tensor], Any], argument: Tensor) -> Any:
    """Return function(argument), for which torch computes on one thread. More of them would wait for cores on
    which ONNX Runtime's are waiting for work.
    """
    global _before
    if _before is not None or (threads := torch.get_num_threads()) == 1:
        return function(argument)
    _before = threads
    torch.set_num_threads(1)
    try:
        return function(argument)
    finally:
        torch.set_num_threads(threads)
        _before = None


def choose_threads(options: Any, threads: int | None = None) -> None:
    """Set the threads in an onnxruntime.SessionOptions, by default torch's number."""
    options.intra_op_num_threads = threads or most_threads()
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
