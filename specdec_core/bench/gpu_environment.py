"""The card and the software around it: versions, imports, bandwidths, the least time of a kernel."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from .gpu_findings import Outcome
from .gpu_run import StepRun
from .gpu_timing import graph_ms
from .machine import machine_name, versions
from .roofline import copy_bandwidth

_PACKAGES = ("torch", "transformers", "accelerate", "triton", "pydantic", "bitsandbytes")
_OPTIONAL = ("bitsandbytes", "triton")
"""Packages without which only some steps are skipped."""
_HIDDEN = 3072
"""Width of the rows of Llama 3.2 3B."""
_CHAIN = 200
"""Kernels that wait for each other in one graph."""


def environment_step(run: StepRun) -> None:
    """Report versions, imports, the card, its bandwidths and the time of small kernels."""
    # First, since a package may initialize CUDA on its import.
    if run.device.type == "cuda":
        run.add("CUDA after the imports", _after_imports())
    for name in _PACKAGES:
        run.attempt(f"import {name}", partial(_imported, name))
    run.add("versions", Outcome("measured", ", ".join(f"{k} {v}" for k, v in versions().items()), versions()))
    run.attempt("card", lambda: _card(run.device))
    run.attempt("bandwidth", lambda: _bandwidths(run))
    run.attempt("one small kernel", lambda: _small_kernels(run))


def _after_imports() -> Outcome:
    initialized = torch.cuda.is_initialized()
    text = "takes memory of the card" if initialized else "leaves the card alone"
    return Outcome("measured", f"a step that waits {text}", {"initialized": initialized})


def _imported(name: str) -> Outcome:
    imported_before, started = name in sys.modules, time.perf_counter()
    try:
        importlib.import_module(name)
    except Exception as error:  # a package may raise anything
        status = "skipped" if name in _OPTIONAL else "fail"
        return Outcome(status, f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - started
    try:
        number = version(name)
    except PackageNotFoundError:
        number = "unknown"
    if imported_before:
        return Outcome("measured", number, {"version": number})
    return Outcome("measured", f"{number}, in {seconds:.2f} s", {"version": number, "import_s": seconds})


def _card(device: torch.device) -> Outcome:
    if device.type != "cuda":
        return Outcome("skipped", f"{machine_name(device)}; no CUDA device")
    card = torch.cuda.get_device_properties(device)
    order = getattr(torch._C, "_get_sdp_priority_order", None)
    figures = {
        "name": card.name,
        "multiprocessors": card.multi_processor_count,
        "memory_gb": card.total_memory / 2**30,
        "capability": f"{card.major}.{card.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled(),
        "sdp_order": str(order()) if order is not None else None,
    }
    return Outcome("measured", ", ".join(f"{name} {value}" for name, value in figures.items()), figures)


def _bandwidths(run: StepRun) -> Outcome:
    """Terabytes per second of large copies and reads."""
    source = torch.zeros(2**20 if run.smoke else 2**30, dtype=torch.uint8, device=run.device)
    destination, numbers = torch.empty_like(source), source.view(torch.int64)
    copy_ms = graph_ms(run.device, lambda: destination.copy_(source), 10)
    read_ms = graph_ms(run.device, numbers.amax, 10)
    figures = {
        "copy_tb_per_s": 2 * source.nbytes / copy_ms / 1e9,
        "read_tb_per_s": source.nbytes / read_ms / 1e9,
        "single_copy_tb_per_s": copy_bandwidth(run.device) / 1e12,
    }
    text = f"copy {figures['copy_tb_per_s']:.2f} TB/s, read {figures['read_tb_per_s']:.2f} TB/s"
    return Outcome("measured", text, figures)


def _small_kernels(run: StepRun) -> Outcome:
    """Microseconds of one kernel over a row, in a chain of kernels that wait for each other."""
    row = torch.randn(1, _HIDDEN, device=run.device, dtype=torch.bfloat16)
    weight = torch.ones_like(row[0])
    kernels: dict[str, Callable[[Tensor], Tensor]] = {
        "add": lambda x: x + 1,
        "rms_norm": lambda x: rms_norm(x, (_HIDDEN,), weight, 1e-5),
        "silu": silu,
        "roll": lambda x: x.roll(64, -1),
    }
    figures = {name: _chain_us(run, kernel, row) for name, kernel in kernels.items()}
    text = ", ".join(f"{name} {us:.2f} µs" for name, us in figures.items())
    return Outcome("measured", text, figures)


def _chain_us(run: StepRun, kernel: Callable[[Tensor], Tensor], row: Tensor) -> float:
    def chain() -> Tensor:
        x = row
        for _ in range(_CHAIN):
            x = kernel(x)
        return x

    return 1000 * graph_ms(run.device, chain, 20) / _CHAIN
