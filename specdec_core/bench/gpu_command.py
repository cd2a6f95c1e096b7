"""`bench --gpu-checks`: what only a GPU can show, as ordered steps in processes of their own."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NoReturn

import torch

from ..errors import SettingsError
from ..loading.devices import resolve_device
from ..strict_json import to_json
from .gpu_findings import Finding, counts_line
from .gpu_process import RESULTS, PlannedStep, StepRunner
from .gpu_steps import STEPS
from .machine import machine_name, versions
from .options import GpuCheckOptions

_ROOT = Path(__file__).parents[2]
"""The folder that has the package."""


def run(options: GpuCheckOptions) -> int:
    """Run the steps and print their findings. Return the exit code: 1 if a check failed or a step crashed.

    With `json` the findings go to stderr as they come, and to stdout at the end, in one JSON object. Raises
    SettingsError for unknown steps, a device that is no GPU, and an output that cannot be written; LoadError
    for an unknown device.
    """
    steps = _chosen(options.only)
    if not options.smoke and not torch.cuda.is_available():
        print("error: --gpu-checks needs a CUDA device, and there is none here.", file=sys.stderr)
        return 2
    device = _device(options)
    progress = sys.stderr if options.json else sys.stdout

    def report(finding: Finding) -> None:
        print(finding.line, file=progress, flush=True)

    with ExitStack() as stack:
        stack.enter_context(_termination_cleans_up())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="specdec-steps-")))
        output = Path(options.output) if options.output else scratch / "output"
        _require_writable(output)
        runner = StepRunner(
            command=lambda step, findings: _command(step, findings, device, options.smoke),
            environment=_environment(),
            budget_s=options.budget,
            output=output,
            scratch=scratch,
            report=report,
        )
        findings = runner.run(steps)
    if options.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(to_json({"device": machine_name(device), "versions": versions(), "findings": rows}))
    else:
        print(counts_line(findings))
    return 1 if any(finding.status == "fail" for finding in findings) else 0


def _chosen(only: Sequence[str]) -> list[PlannedStep]:
    known = [PlannedStep(step.name, step.seconds) for step in STEPS]
    if unknown := sorted(set(only) - {step.name for step in known}):
        names = ", ".join(step.name for step in known)
        raise SettingsError(f"--only: there is no step {', '.join(unknown)}. Steps: {names}.")
    return [step for step in known if not only or step.name in only]


def _device(options: GpuCheckOptions) -> torch.device:
    if options.smoke:
        if options.device not in (None, "auto", "cpu"):
            raise SettingsError(
                f"--smoke rehearses on the CPU, not on {options.device}. Leave one of them out."
            )
        return torch.device("cpu")
    device = resolve_device(options.device)
    if device.type != "cuda":
        raise SettingsError(f"--gpu-checks needs a CUDA device, not {device}. --smoke rehearses on the CPU.")
    return device


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RESULTS).open("a").close()
    except OSError as error:
        raise SettingsError(
            f"--output: {folder} cannot be written: {error.strerror}. Name another folder."
        ) from error


@contextmanager
def _termination_cleans_up() -> Iterator[None]:
    """Within it SIGTERM, which `timeout` sends, raises SystemExit: steps end and their files are removed."""

    def terminate(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _command(step: str, findings: Path, device: torch.device, smoke: bool) -> list[str]:
    command = [sys.executable, "-m", f"{__package__}.gpu_child", step, str(findings), str(device)]
    return [*command, "--smoke"] if smoke else command


def _environment() -> dict[str, str]:
    """This process's, with the package on the path, without network, output unbuffered."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *([path] if path else [])]),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
