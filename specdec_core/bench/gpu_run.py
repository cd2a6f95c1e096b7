"""The surroundings of one step of the GPU checks: its device, its report, and what is left out where."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..errors import quote
from ..loading.weights import ModelSource, load_model
from ..settings import Quantization
from .gpu_findings import Finding, Outcome

_TRACEBACK_CHARS = 2000


@dataclass(frozen=True, slots=True)
class StepRun:
    """One run of a step.

    A smoke run is a rehearsal on the CPU with tiny shapes: it goes through the same code, and skips what
    needs CUDA. `folder` is empty at the start and removed at the end; `report` passes a finding on at once.
    """

    step: str
    device: torch.device
    smoke: bool
    folder: Path
    report: Callable[[Finding], object]

    def add(self, name: str, outcome: Outcome) -> None:
        """Report an outcome."""
        self.report(Finding(self.step, name, outcome.status, outcome.description, outcome.figures))

    def attempt(
        self, name: str, function: Callable[[], Outcome], quantization: Quantization = "none"
    ) -> None:
        """Report what `function` returns; an exception is a failure.

        Reports it as skipped, without a call, where models cannot be loaded in this quantization.
        """
        if (obstacle := self.obstacle(quantization)) is not None:
            self.add(name, Outcome("skipped", obstacle))
            return
        started = time.perf_counter()
        try:
            outcome = function()
        except Exception as error:
            figures = {"traceback": traceback.format_exc()[-_TRACEBACK_CHARS:]}
            outcome = Outcome("fail", quote(error), figures)
        figures = {**outcome.figures, "seconds": round(time.perf_counter() - started, 2)}
        self.add(name, Outcome(outcome.status, outcome.description, figures))
        gc.collect()
        # An error that sticks to the CUDA context is raised here again, and was reported.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()

    def obstacle(self, quantization: Quantization) -> str | None:
        """Return the reason why no model can be loaded in this quantization; None if it can."""
        if quantization == "none":
            return None
        if self.device.type != "cuda":
            return f"{quantization} needs a CUDA device"
        if importlib.util.find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed"
        return None

    def load(self, folder: Path, quantization: Quantization) -> PreTrainedModel:
        """Load a model onto the device."""
        return load_model(ModelSource(str(folder), quantization=quantization), self.device)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def free_mb(self) -> float:
        """Free memory of the GPU in MiB, as the driver counts it; 0 on a CPU."""
        return torch.cuda.mem_get_info(self.device)[0] / 2**20 if self.device.type == "cuda" else 0.0


def format_name(quantization: Quantization) -> str:
    """Return the name of a weight format: bf16 for no quantization."""
    return "bf16" if quantization == "none" else quantization
