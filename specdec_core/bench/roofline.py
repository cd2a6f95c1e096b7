"""Memory roofline of one-row steps: bytes of weights read ÷ copy bandwidth, the least time of a step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..pair import LoadedPair
from ..runners import Runner
from ..runners.short_head import ShortHead
from .figures import Table

_CUDA_COPY_BYTES = 2 * 2**30
_CPU_COPY_BYTES = 2**28
_COPIES = 9


@dataclass(frozen=True, slots=True)
class Roofline:
    """One model's one-row step against its floor, bytes_read ÷ bandwidth.

    `bandwidth` is bytes read plus bytes written per second of a large copy.
    """

    model: str
    bytes_read: int
    bandwidth: float
    floor_s: float
    step_s: float

    @property
    def times_the_floor(self) -> float:
        """Measured time ÷ floor."""
        return self.step_s / self.floor_s


def roofline(pair: LoadedPair, steps: Table) -> list[Roofline]:
    """Return the rooflines of the target and, if any, the drafter, with the measured times of `steps`.

    Weights that fit a CPU's cache may be read faster than memory is copied.
    """
    bandwidth = copy_bandwidth(pair.target.device)
    models = [("target", pair.target, steps.verify_s[1])]
    if pair.drafter is not None:
        models.append(("drafter", pair.drafter, steps.drafter_step_s))
    rooflines = []
    for name, runner, step_s in models:
        size = bytes_read(runner)
        rooflines.append(Roofline(name, size, bandwidth, size / bandwidth, step_s))
    return rooflines


def bytes_read(runner: Runner) -> int:
    """Return the bytes of weights that a one-row step reads: all but the embedding table, unless it is tied.

    A step looks up one row of the table. A tied table is read as the output layer, which may be short.
    """
    if runner.step_bytes is not None:
        return runner.step_bytes
    model = runner.model
    embedding = model.get_input_embeddings().get_parameter("weight")
    output = model.get_output_embeddings()
    tied = output is not None and output.weight is embedding
    unread = output.unread_bytes if isinstance(output, ShortHead) else 0
    return model.get_memory_footprint() - unread - (0 if tied else embedding.nbytes)


def copy_bandwidth(device: torch.device) -> float:
    """Return the bytes read plus bytes written per second of the fastest of several large copies."""
    size = _CUDA_COPY_BYTES if device.type == "cuda" else _CPU_COPY_BYTES
    source = torch.ones(size, dtype=torch.uint8, device=device)
    destination = torch.zeros_like(source)
    fastest = min(_copy_s(source, destination) for _ in range(_COPIES))
    return 2 * size / fastest


def _copy_s(source: torch.Tensor, destination: torch.Tensor) -> float:
    if source.device.type != "cuda":
        started = time.perf_counter()
        destination.copy_(source)
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    destination.copy_(source)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000
