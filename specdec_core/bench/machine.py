"""Facts about the machine of a measurement: processor or GPU, library versions, memory in use."""

from __future__ import annotations

import platform
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

from ..pair import LoadedPair


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes. `caches` is the largest conversation's; `peak` is CUDA's, on a CPU the process's."""

    target_weights: int
    drafter_weights: int | None
    caches: int
    peak: int


def machine_name(device: torch.device) -> str:
    """Return the GPU's name, or the processor's with its number of cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def versions(threads: int | None = None) -> dict[str, str]:
    """Return the versions of Python, torch and transformers, and the number of threads (None for torch's)."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": str(threads or torch.get_num_threads()),
    }


def memory_in_use(pair: LoadedPair, cache_bytes: int) -> Memory:
    """Return the pair's memory. The peak is the one since CUDA's statistics were reset, or of the process."""
    device = pair.target.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Memory(
        target_weights=pair.target.weights_bytes,
        drafter_weights=pair.drafter.weights_bytes if pair.drafter is not None else None,
        caches=cache_bytes,
        peak=peak,
    )
