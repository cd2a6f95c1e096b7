"""Measurement of the number of threads that a forward is fastest on, under the machine's present load."""

from __future__ import annotations

import logging
import time
from typing import Any

import torch

from ..errors import quote

_log = logging.getLogger(__name__)

_PROBED_S = 0.08
"""A thread may keep a core for some milliseconds before another has its turn: longer than many such turns."""
_LAYERS = 4
_WIDTH = 256
_INNER_A_THREAD = 256
"""ONNX Runtime gives a thread of a product 65,536 multiplications at least."""
_INNER = 1024
_CLEARLY = 0.95
"""More threads are worth it if they take at most this part of the time."""


def measured_threads(most: int) -> int:
    """Return the number of threads, up to `most`, on which a forward is fastest at this moment.

    `most` itself where ONNX Runtime cannot be used. Runs products as a model has them on each number that
    comes into question, a tenth of a second each: where other processes keep cores busy, a forward on all of
    them waits for the busiest.
    """
    if most == 1:
        return 1
    best, best_s = 1, None
    try:
        for threads in sorted({1, most // 2, most - 1, most} - {0}):
            seconds = _probed_s(threads, most)
            if best_s is None or seconds < best_s * _CLEARLY:
                best, best_s = threads, seconds
    except Exception as error:  # the runner says what ONNX Runtime lacks here, torch computes without it
        _log.warning("The number of threads is not measured: %s", quote(error))
        return most
    return best


def _probed_s(threads: int, most: int) -> float:
    """Mean seconds of a run of the probe for `most` threads under the present load."""
    import numpy as np

    from .session import open_session

    session = open_session(*_probe(most), threads=threads)
    feeds = {"x": np.ones((1, _WIDTH), np.float32)}
    session.run(None, feeds)
    started, runs = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < _PROBED_S:
        session.run(None, feeds)
        runs += 1
    return passed / runs


def _probe(most: int) -> Any:
    """A graph of a few layers' products, wide enough for `most` threads, and its weights."""
    from onnx import TensorProto

    from .builder import GraphBuilder

    width = max(_INNER, _INNER_A_THREAD * most)
    graph = GraphBuilder()
    x = graph.input("x", TensorProto.FLOAT, [1, _WIDTH])
    for at in range(_LAYERS):
        inner = graph.weight(f"inner.{at}", torch.full((_WIDTH, width), 1 / _WIDTH))
        outer = graph.weight(f"outer.{at}", torch.full((width, _WIDTH), 1 / width))
        wide = graph.node("Relu", [graph.node("MatMul", [x, inner], f"wide.{at}")], f"active.{at}")
        x = graph.node("MatMul", [wide, outer], f"x.{at}")
    graph.output(x, TensorProto.FLOAT, [1, _WIDTH])
    return graph.model(), graph.weights
