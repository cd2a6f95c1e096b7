"""The process of one step: imports everything, waits for a line on stdin, runs the step.

    python -m specdec_core.bench.gpu_child STEP FINDINGS DEVICE [--smoke]

`FINDINGS` is the file that findings are appended to. The process ends when its stdin does: a step whose
starter was killed would keep the GPU.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
from pathlib import Path

import torch
from transformers.utils import logging

from ..loading.devices import resolve_device
from .gpu_findings import Finding, finding_json
from .gpu_run import StepRun
from .gpu_steps import STEPS


def run_step(run: StepRun) -> None:
    """Run the step that `run` names."""
    (step,) = [step for step in STEPS if step.name == run.step]
    step.function(run)


def main() -> None:
    """Run a command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=[step.name for step in STEPS])
    parser.add_argument("findings", type=Path)
    parser.add_argument("device")
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    def report(finding: Finding) -> None:
        with arguments.findings.open("a", encoding="utf-8") as file:
            file.write(finding_json(finding) + "\n")
        print(finding.line, flush=True)

    if not sys.stdin.readline():
        return
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="specdec-gpu-") as folder:
        device = _indexed(resolve_device(arguments.device))
        run_step(StepRun(arguments.step, device, arguments.smoke, Path(folder), report))


def _end_with_stdin() -> None:
    """Wait for the end of stdin, and end the process."""
    # Not through sys.stdin, whose lock Python takes at the end.
    while os.read(0, 1):
        pass
    os._exit(1)


def _indexed(device: torch.device) -> torch.device:
    """Return the device as tensors name it: cuda:0 for cuda."""
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


if __name__ == "__main__":
    main()
