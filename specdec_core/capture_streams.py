"""Streams that CUDA graphs are captured on, and the scratch memory that cuBLAS keeps for them.

It is kept for every stream and thread that cuBLAS was used on: 32 MB on Hopper, 8 MB before it. A graph's
replays use that of the stream it was captured on. So each owner has a stream of its own while it lives: a
load on the same stream would write into scratch memory that an answer's replays are using. Streams are lent
again after their owner is gone, and without owners the scratch memory is freed. Knows nothing of graphs or
models.
"""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict

import torch

_changing = threading.Lock()
_owners: weakref.WeakSet[object] = weakref.WeakSet()
_idle: defaultdict[torch.device, list[torch.cuda.Stream]] = defaultdict(list)
_used: set[torch.device] = set()
"""Devices where streams have been lent since scratch memory was last freed."""


def capture_stream(owner: object, device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no one else has while `owner` lives."""
    idle = _idle[device]
    with _changing:
        _owners.add(owner)
        _used.add(device)
    try:
        stream = idle.pop()
    except IndexError:
        stream = torch.cuda.Stream(device)
    # A collection may run this in any thread, one that has the lock among them: it only appends.
    weakref.finalize(owner, idle.append, stream).atexit = False
    return stream


def free_workspaces() -> None:
    """Free cuBLAS's scratch memory if streams were lent and no owner is left. Graphs keep its addresses, and
    torch can only free all of it at once.
    """
    with _changing:
        if _used and not _owners:
            torch._C._cuda_clearCublasWorkspaces()
            _used.clear()
