"""Times on a device: graphs replayed back to back, so that no launch by the host is in them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

_ROUNDS = 5


def graph_ms(device: torch.device, function: Callable[[], object], replays: int = 50) -> float:
    """Return the median milliseconds of one call: captured once and replayed back to back.

    The function has fixed shapes and does not synchronize. On a CPU it is the time of one call after another.
    """
    if device.type != "cuda":
        function()
        started = time.perf_counter()
        function()
        return 1000 * (time.perf_counter() - started)
    with torch.cuda.device(device):
        replay = _captured(function)
        replay()
        return statistics.median(_event_ms(replay, replays) for _ in range(_ROUNDS))


def event_ms(device: torch.device, function: Callable[[], object], calls: int) -> float:
    """Return the milliseconds of one of several calls one after the other, by the device's clock.

    The queue to the device stays full if the host takes less time for a call than the device.
    """
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(calls):
            function()
        return 1000 * (time.perf_counter() - started) / calls
    with torch.cuda.device(device):
        return _event_ms(function, calls)


def _captured(function: Callable[[], object]) -> Callable[[], None]:
    """Return the replay of the captured function."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        function()
    return graph.replay


def _event_ms(function: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls
