"""Clocks of the decode loop: the host's, or the device's own by CUDA events."""

from __future__ import annotations

import time

import torch


class HostClock:
    """The clock for a CPU, which computes while the caller waits."""

    def mark(self) -> float:
        """See Clock.mark."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """See Clock.seconds."""
        return end - start


class CudaClock:
    """The clock of a CUDA device. Marks are events in the current stream, so making one does not synchronize;
    reading two waits for the later one.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def mark(self) -> torch.cuda.Event:
        """See Clock.mark."""
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """See Clock.seconds."""
        end.synchronize()
        return start.elapsed_time(end) / 1000


def clock_for(device: torch.device) -> HostClock | CudaClock:
    """Return the clock of a device."""
    return CudaClock(device) if device.type == "cuda" else HostClock()
