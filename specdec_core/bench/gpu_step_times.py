"""Times of one model's forward by number of rows, from graphs replayed back to back, and where they go."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

from ..loading.step_times import ANY_ID
from ..runners import CudaGraphRunner, RewindableCache
from ..runners.static import FIRST_BUCKET
from .gpu_checks import forward_figures
from .gpu_findings import Outcome
from .gpu_graphs import graph_runner
from .gpu_run import StepRun
from .gpu_shapes import Shape, WeightFormat, random_shape
from .gpu_timing import event_ms
from .roofline import bytes_read, copy_bandwidth

_CONTEXT = 64
_ROWS = range(1, 10)
_PROFILED_ROWS = (1, 5)
_CALLS = 20
_REPETITIONS = 3
_KERNELS = 14
"""Kernels of a profile that are named, the longest first."""


def step_times_step(shape: Shape, held: WeightFormat, run: StepRun) -> None:
    """Time the forward of a model of that shape, and profile one that is not captured."""
    if (obstacle := run.obstacle("none" if held == "bf16" else held)) is not None:
        run.add("step times", Outcome("skipped", obstacle))
        return
    started = time.perf_counter()
    model = random_shape(shape, held, run.device, run.smoke)
    run.synchronize()
    built_s, free_mb, started = time.perf_counter() - started, run.free_mb, time.perf_counter()
    runner = graph_runner(model)
    made_s = time.perf_counter() - started
    figures = {
        "built_s": built_s,
        "runner_s": made_s,
        "runner_mb": free_mb - run.free_mb,
        **forward_figures(runner),
    }
    slower = runner.why_modules or runner.why_unfused or "the fastest forward"
    ready = f"weights in {built_s:.1f} s, runner in {made_s:.1f} s; {slower}"
    run.add("model", Outcome("measured", ready, figures))
    cache = runner.new_cache()
    runner.prefill(cache, [ANY_ID] * _CONTEXT)
    read, bandwidth = bytes_read(runner), copy_bandwidth(run.device)
    with torch.inference_mode():
        for rows in _ROWS:
            run.attempt(
                f"forward of {rows} rows", lambda rows=rows: _timed(run, runner, cache, rows, read, bandwidth)
            )
        for rows in _PROFILED_ROWS:
            run.attempt(f"kernels of {rows} rows", lambda rows=rows: _profiled(run, runner, rows))


def _timed(
    run: StepRun, runner: CudaGraphRunner, cache: RewindableCache, rows: int, read: int, bandwidth: float
) -> Outcome:
    """Time forwards of so many rows after the context; the first one captures."""
    ids = torch.full((rows,), ANY_ID, device=run.device)

    def forward() -> None:
        runner.forward(cache, ids)
        cache.rewind(_CONTEXT)

    captured, free_mb, started = runner.captured, run.free_mb, time.perf_counter()
    forward()
    run.synchronize()
    first_s, first_mb = time.perf_counter() - started, free_mb - run.free_mb
    milliseconds, host_ms = [], []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        milliseconds.append(event_ms(run.device, forward, _CALLS))
        started = time.perf_counter()
        for _ in range(_CALLS):
            forward()
        host_ms.append(1000 * (time.perf_counter() - started) / _CALLS)
        run.synchronize()
    ms, host = statistics.median(milliseconds), statistics.median(host_ms)
    floor_ms = 1000 * read / bandwidth
    figures = {
        "rows": rows,
        "ms": ms,
        "host_ms": host,
        "captured_in_first": runner.captured > captured,
        "first_s": first_s,
        "first_mb": first_mb,
        "bytes_read": read,
        "tb_per_s": read / ms / 1e9,
        "floor_ms": floor_ms,
        "times_the_floor": ms / floor_ms,
    }
    return Outcome(
        "measured",
        f"{ms:.3f} ms, {ms / floor_ms:.2f} × the floor of {floor_ms:.3f} ms; {host:.3f} ms of the host",
        figures,
    )


def _profiled(run: StepRun, runner: CudaGraphRunner, rows: int) -> Outcome:
    """List the kernels of one uncaptured forward, by time."""
    ids = torch.full((rows,), ANY_ID, device=run.device)
    positions = runner.positions(_CONTEXT, _CONTEXT + rows)

    def forward() -> None:
        runner.compute(ids, positions, FIRST_BUCKET, 0, None)
        run.synchronize()

    forward()
    on_gpu = run.device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        forward()
    events: Sequence[Any] = profile.key_averages()
    time_us = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # Calls of the host are listed beside the kernels, with no time on the device.
    kernels = [(event.key, event.count, getattr(event, time_us)) for event in events]
    kernels = sorted((kernel for kernel in kernels if kernel[2] > 0), key=lambda kernel: -kernel[2])
    count, total_us = sum(kernel[1] for kernel in kernels), sum(kernel[2] for kernel in kernels)
    longest = [{"kernel": key[:100], "count": n, "us": round(us, 1)} for key, n, us in kernels[:_KERNELS]]
    text = f"{count} kernels, {total_us:.0f} µs; longest {kernels[0][0][:60]}" if kernels else "no kernels"
    return Outcome("measured", text, {"rows": rows, "kernels": count, "us": total_us, "longest": longest})
