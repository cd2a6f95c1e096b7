"""The parts of torch.cuda that a capture uses, without a device: streams, graphs and the allocator's state.

torch's own `torch.cuda.graph` and `torch.cuda.stream` run over them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch

INVALID = "CUDA error: operation failed due to a previous error during capture"


class FakeStream:
    """A stream that records what waits for what."""

    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.name = name
        self.device = torch.device("cpu")
        self._log = cuda.log

    def wait_stream(self, other: FakeStream) -> None:
        """Record that this stream waits for the other."""
        self._log.append(f"{self.name} waits for {other.name}")


class FakeCuda:
    """`log` has the order of events, `under_way` the pools that the allocator believes a capture goes into.

    With `ends_for_the_allocator` false, an error at the end of a capture skips the allocator's part of it, as
    in torch before pytorch/pytorch#180395.
    """

    def __init__(self, monkeypatch, ends_for_the_allocator: bool = True) -> None:
        self.log: list[str] = []
        self.under_way: set[tuple[int, int]] = set()
        self.ends_for_the_allocator = ends_for_the_allocator
        self.main = self.current = FakeStream(self, "main")
        self.pools = self.streams = self.cleared = 0
        self.breaks_captures = False
        """True while whatever is captured is invalid in the end."""
        names: dict[str, Callable] = {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "device": nullcontext,
            "Stream": self._new_stream,
            "current_stream": lambda device=None: self.current,
            "set_stream": self._set_stream,
            "synchronize": lambda device=None: None,
            "empty_cache": lambda: None,
            "graph_pool_handle": self._new_pool,
            "CUDAGraph": lambda: FakeGraph(self),
        }
        for name, function in names.items():
            monkeypatch.setattr(torch.cuda, name, function)
        self.generator = FakeGenerator()
        monkeypatch.setattr(torch.cuda, "default_generators", (self.generator,))
        bindings: dict[str, Callable] = {
            "_host_emptyCache": lambda: None,
            "_cuda_endAllocateToPool": self._end,
            "_cuda_clearCublasWorkspaces": self._clear,
        }
        for name, function in bindings.items():
            monkeypatch.setattr(torch._C, name, function, raising=False)

    def _new_stream(self, device: torch.device) -> FakeStream:
        self.streams += 1
        return FakeStream(self, f"side {self.streams}")

    def _set_stream(self, stream: FakeStream) -> None:
        self.current = stream

    def _new_pool(self) -> tuple[int, int]:
        self.pools += 1
        return 0, self.pools

    def _clear(self) -> None:
        self.cleared += 1

    def _end(self, device: int, pool: tuple[int, int]) -> None:
        if pool not in self.under_way:
            raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
        self.under_way.remove(pool)


class FakeGenerator:
    """A generator whose state counts as capturing from the start of a capture to its end."""

    def __init__(self) -> None:
        self.capturing = False

    def clone_state(self) -> FakeGenerator:
        return FakeGenerator()

    def graphsafe_set_state(self, other: FakeGenerator) -> None:
        self.capturing = other.capturing


class FakeGraph:
    """A graph whose capture ends in an error if its function raised while `breaks_captures`."""

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda
        self._pool: tuple[int, int] | None = None
        self._ended = False

    def capture_begin(self, pool: tuple[int, int], **options: object) -> None:
        """Begin a capture into a pool."""
        self._cuda.log.append(f"capture on {self._cuda.current.name} into {pool}")
        self._cuda.under_way.add(pool)
        self._cuda.generator.capturing = True
        self._pool = pool

    def capture_end(self) -> None:
        """End the capture, for the allocator too unless torch is too old to do so after an error."""
        assert self._pool is not None
        if not self._cuda.breaks_captures or self._cuda.ends_for_the_allocator:
            self._cuda.under_way.remove(self._pool)
            self._cuda.generator.capturing = False
        if self._cuda.breaks_captures:
            raise RuntimeError(INVALID)
        self._ended = True

    def pool(self) -> tuple[int, int]:
        """Return the pool, as torch does only after a capture that ended well."""
        if not self._ended or self._pool is None:
            raise RuntimeError("Called CUDAGraph::pool() without a preceding successful capture.")
        return self._pool
