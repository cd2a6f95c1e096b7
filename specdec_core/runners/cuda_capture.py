"""Capture of functions as CUDA graphs: warm-up, recording, and what a failed recording leaves behind.

Knows nothing of models.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from ..capture_streams import capture_stream
from ..errors import quote
from .host_reads import NoHostReads

Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], object], Tensor]]
"""Captures a function that computes in place: returns its replay and its result, which replays overwrite."""

_one_at_a_time = threading.Lock()
"""torch allows one capture in a process."""

_refusals: dict[torch.device, str] = {}
"""Devices on which no graph can be captured any more, with the reason."""

_unfinished: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed. Allocators of torch may still refer to them."""


class CaptureRefusedError(RuntimeError):
    """No graph can be captured on the device in this process."""


def capture_refusal(device: torch.device) -> str | None:
    """Return the reason why no graph can be captured on the device in this process; None if one can."""
    return _refusals.get(device)


class CudaCapture:
    """Captures functions as CUDA graphs that share one memory pool while any of them is alive."""

    def __init__(
        self,
        device: torch.device,
        replay: Callable[[torch.cuda.CUDAGraph], object] = torch.cuda.CUDAGraph.replay,
    ) -> None:
        self._device = device
        self._replay = replay
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()
        self._side = capture_stream(self, device)

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Run the function three times on a side stream, as capture requires, then capture it there.

        Raises CaptureRefusedError, HostReadError for a function that waits for the host, and any error of the
        function.
        """
        with _one_at_a_time, torch.cuda.device(self._device):
            if (refusal := capture_refusal(self._device)) is not None:
                raise CaptureRefusedError(refusal)
            current = torch.cuda.current_stream()
            try:
                self._warm_up(function, current)
                graph, result = self._record(function)
            finally:
                # A failed capture leaves the thread on the side stream, with which nothing synchronizes.
                torch.cuda.set_stream(current)
        self._graphs.add(graph)
        return partial(self._replay, graph), result

    def _warm_up(self, function: Callable[[], Tensor], current: torch.cuda.Stream) -> None:
        self._side.wait_stream(current)
        try:
            with torch.cuda.stream(self._side):
                for _ in range(2):
                    function()
                with NoHostReads(self._device):
                    function()
        finally:
            # Whatever runs after an error writes to the same buffers.
            current.wait_stream(self._side)

    def _record(self, function: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        # A pool ends with its last graph, and torch refuses to capture into one that has ended.
        pool: Any = next((other.pool() for other in self._graphs), None) or torch.cuda.graph_pool_handle()
        cause: Exception | None = None
        try:
            # Other threads, a load among them, may go on allocating.
            with torch.cuda.graph(graph, pool=pool, stream=self._side, capture_error_mode="thread_local"):
                try:
                    result = function()
                except Exception as error:
                    cause = error
                    raise
        except Exception as error:
            # The end of a broken capture raises too, and says only that something failed before.
            cause = cause or error
            if _is_left_open(graph, pool, self._device):
                _unfinished.append(graph)
                _refusals[self._device] = (
                    f"a capture failed before on {self._device}, after which this version of torch captures "
                    f"nothing more: {quote(cause)}"
                )
            raise cause from None
        return graph, result


def _is_left_open(graph: torch.cuda.CUDAGraph, pool: Any, device: torch.device) -> bool:
    """True if a failed capture did not end for torch's allocators; for that of the device it is ended here.

    Before pytorch/pytorch#180395 an error of the driver at the end of a capture skips their part of it. The
    allocator of pinned memory still refers to the graph then, and would ask it in the next capture.
    """
    try:
        graph.pool()
    except RuntimeError:
        pass  # a graph has a pool once its capture has ended
    else:
        return False
    try:
        # Else memory would not be given back and a shortage not be met by emptying the cache.
        torch._C._cuda_endAllocateToPool(device.index or 0, pool)
    except RuntimeError:
        return False  # no capture into this pool is under way
    # The generator counts as capturing, too, and would refuse to draw. A clone of its state does not.
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())
    return True
