"""The lanes of `bench --shapes` over a pair of real sizes, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from .gpu_findings import Outcome
from .gpu_run import StepRun
from .gpu_shapes import Shape, WeightFormat, shape_config


def lanes_step(held: WeightFormat, run: StepRun) -> None:
    """Measure Llama 3.2 3B drafted by 1B, both in one weight format."""
    name = f"Llama 3.2 3B drafted by 1B, {held}"
    run.attempt(name, lambda: _lanes(run, held), "none" if held == "bf16" else held)


def _lanes(run: StepRun, held: WeightFormat) -> Outcome:
    finished = subprocess.run(
        _command(run, held), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    print(finished.stderr, flush=True)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines()
        return Outcome("fail", f"exit code {finished.returncode}: {lines[-1] if lines else 'no message'}")
    report = json.loads(finished.stdout)
    return Outcome("measured", "; ".join(_lane_texts(report)), {"report": report})


def _command(run: StepRun, held: WeightFormat) -> list[str]:
    shapes: tuple[Shape, Shape] = ("llama_3b", "llama_1b")
    command = [sys.executable, "-m", "specdec_core", "bench", "--device", str(run.device), "--shapes"]
    for shape in shapes:
        path = Path(run.folder, f"{shape}.json")
        path.write_text(json.dumps(shape_config(shape, run.smoke)), encoding="utf-8")
        command.append(str(path))
    command += ["--quantization", "none" if held == "bf16" else held]
    command += [
        "--alpha",
        "0.8",
        "--no-ngram",
        "--temperature",
        "0",
        "--peers",
        "--peer-gamma",
        "4",
        "--json",
    ]
    if run.smoke:
        return [*command, "--gamma", "4", "auto", "--repetitions", "1", "--max-new-tokens", "8"]
    gammas = ["1", "2", "3", "4", "auto"]
    return [*command, "--gamma", *gammas, "--repetitions", "2", "--max-new-tokens", "96"]


def _lane_texts(report: dict[str, Any]) -> list[str]:
    """Each lane's tokens per second and ratio to the baseline."""
    texts = []
    for lane in report["tables"][0]["lanes"]:
        rate, ratio = lane["decode_rate"] or lane["answer_rate"], lane["vs_baseline"]
        speedup = f" ({ratio['median']:.2f} × the baseline)" if ratio else ""
        texts.append(f"{lane['lane']} {rate:.0f} tokens/s{speedup}")
    return texts
