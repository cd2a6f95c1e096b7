"""Threads of a session of ONNX Runtime. Can be imported without onnxruntime."""

from __future__ import annotations

from typing import Any

import torch

_SPIN_US = 100
"""Microseconds that a session's threads wait for more work without sleeping: longer than between the
products of a forward, shorter than a forward, so that a drafter's threads leave the cores to the target's.
"""


def choose_threads(options: Any, threads: int | None = None) -> None:
    """Set the threads in an onnxruntime.SessionOptions, by default torch's number."""
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPIN_US))
