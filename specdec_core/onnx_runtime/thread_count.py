"""Measurement of the number of threads that a forward is fastest on, under the machine's present load."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import torch

from .packages import missing_package

_PROBED_S = 0.08
"""A thread may keep a core for some milliseconds before another has its turn: longer than many such turns."""
_LAYERS = 4
_WIDTH = 256
_INNER = 1024
_CLEARLY = 0.95
"""More threads are worth it if they take at most this part of the time."""


def measured_threads() -> int:
    """Return the number of threads, up to torch's, on which a forward is fastest at this moment.

    Torch's where ONNX Runtime is not installed. Runs products as a model has them on each number that comes
    into question, a tenth of a second each: where other processes keep cores busy, a forward on all of them
    waits for the busiest.
    """
    most = torch.get_num_threads()
    if missing_package() is not None:
        return most
    best, best_s = 1, None
    for threads in sorted({1, most // 2, most - 1, most} - {0}):
        seconds = _probed_s(threads) if most > 1 else 0.0
        if best_s is None or seconds < best_s * _CLEARLY:
            best, best_s = threads, seconds
    return best


def _probed_s(threads: int) -> float:
    """Mean seconds of a run of the probe under the present load."""
    import numpy as np

    from .session import open_session

    session = open_session(*_probe(), threads=threads)
    feeds = {"x": np.ones((1, _WIDTH), np.float32)}
    session.run(None, feeds)
    started, runs = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < _PROBED_S:
        session.run(None, feeds)
        runs += 1
    return passed / runs


@lru_cache
def _probe() -> Any:
    """A graph of a few layers' products, and its weights."""
    from onnx import TensorProto

    from .builder import GraphBuilder

    graph = GraphBuilder()
    x = graph.input("x", TensorProto.FLOAT, [1, _WIDTH])
    generator = torch.Generator().manual_seed(0)
    for at in range(_LAYERS):
        inner = graph.weight(f"inner.{at}", torch.randn(_WIDTH, _INNER, generator=generator) / _WIDTH)
        outer = graph.weight(f"outer.{at}", torch.randn(_INNER, _WIDTH, generator=generator) / _INNER)
        wide = graph.node("Relu", [graph.node("MatMul", [x, inner], f"wide.{at}")], f"active.{at}")
        x = graph.node("MatMul", [wide, outer], f"x.{at}")
    graph.output(x, TensorProto.FLOAT, [1, _WIDTH])
    return graph.model(), graph.weights
