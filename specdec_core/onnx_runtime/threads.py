"""Threads of ONNX Runtime: a pool for each session, or one for all sessions of a process.

Can be imported without onnxruntime.
"""

from __future__ import annotations

from typing import Any

import torch

_shared = False


def share_threads() -> None:
    """Let all later sessions of this process compute on one pool, of as many threads as torch has now.

    With a pool for each, the threads of the drafter's would spin on the cores that the target needs. So those
    do not spin, and take up to 1.5 times as long on a quiet machine. This is for programs that own their
    process: afterwards ONNX Runtime refuses sessions of other code that ask for threads of their own. Nothing
    happens without onnxruntime, or the second time.
    """
    global _shared
    if _shared:
        return
    try:
        import onnxruntime

        onnxruntime.set_global_thread_pool_sizes(torch.get_num_threads(), 1)
    except ImportError:
        return
    except Exception as error:  # the program has made one before
        if "already been created" not in str(error):
            raise
    _shared = True


def choose_threads(options: Any, most: int | None = None) -> None:
    """Set the threads in an onnxruntime.SessionOptions: torch's number, or `most` in a pool of its own."""
    if _shared:
        options.use_per_session_threads = False
        return
    options.intra_op_num_threads = most or torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
