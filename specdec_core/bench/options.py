"""Options of the bench command, and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import SettingsError
from ..settings import MAX_GAMMA, Number, Quantization, Settings, Verification, WholeNumber

_RANGES = {
    "repetitions": WholeNumber(1, 1_000_000),
    "exactness": WholeNumber(1, 1_000_000),
    "distribution": WholeNumber(100, 1_000_000),
    "history": WholeNumber(1, 100_000_000),
    "peer_gamma": WholeNumber(1, MAX_GAMMA),
    "drafter_noise": Number(0, 1000),
    "alpha": Number(0, 1),
}
"""Values that options take which are no settings of an answer; each value of a list is one."""
_BUDGET_RANGE_S = Number(1, 86_400)
GPU_BUDGET_S = 560.0
"""Default budget of the GPU checks: below the 600 s that one command may take on a lent machine."""


@dataclass(frozen=True, slots=True)
class GpuCheckOptions:
    """The arguments of `--gpu-checks`: seconds for all steps, names of the steps (none for all), a folder for
    the findings, and whether to rehearse on the CPU.
    """

    budget: float
    only: Sequence[str]
    output: str | None
    smoke: bool
    device: str | None
    json: bool


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The bench command's arguments, named as on the command line.

    The pair is a preset, or a target with or without a drafter, or is made from the two config files of
    `shapes`. `exactness` (a number of prompts), `distribution` (a number of answers), `history` (lengths in
    tokens), `formats` (a text file) and `gpu_checks` replace the lanes by another measurement.
    """

    preset: str | None
    target: str | None
    drafter: str | None
    device: str | None
    quantization: Quantization | None
    gamma: Sequence[int | Literal["auto"]]
    no_ngram: bool
    peers: bool
    romsto: str | None
    llama_cpp: str | None
    peer_gamma: Sequence[int]
    temperature: Sequence[float]
    verification: Verification
    text: str
    max_new_tokens: int
    drafter_noise: float
    repetitions: int
    chart: str | None
    json: bool
    shapes: Sequence[str] | None
    alpha: float
    exactness: int | None
    distribution: int | None
    history: Sequence[int] | None
    formats: str | None
    gpu_checks: GpuCheckOptions | None


def require_valid(options: BenchOptions) -> None:
    """Raise SettingsError, naming the option, for a value out of range or a contradiction."""
    for name, values in _RANGES.items():
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None:
                values.check(f"--{name.replace('_', '-')}", value)
    if options.gpu_checks:
        _BUDGET_RANGE_S.check("--budget", options.gpu_checks.budget)
        if options.preset or options.target or options.drafter or options.shapes:
            raise SettingsError("--gpu-checks has its own models; name none beside it.")
    if options.shapes and (options.preset or options.target or options.drafter):
        raise SettingsError("--shapes makes its own pair; name neither a preset nor models beside it.")
    if options.shapes and options.drafter_noise:
        raise SettingsError("--drafter-noise is for loaded pairs; with --shapes choose a smaller --alpha.")
    if options.formats is not None and (options.quantization or options.shapes):
        raise SettingsError("--formats measures every quantization of a loaded pair; name none beside it.")
    others = (options.exactness, options.distribution, options.history, options.formats)
    if options.llama_cpp and others.count(None) < len(others):
        raise SettingsError(
            "--llama-cpp is a lane; --exactness, --distribution, --history and --formats have none."
        )
    for gamma in options.gamma:
        Settings(gamma=gamma)
    for temperature in options.temperature:
        Settings(temperature=temperature)
    Settings(max_new_tokens=options.max_new_tokens)
    if options.chart and not Path(options.chart).resolve().parent.is_dir():
        raise SettingsError(f"--chart: there is no folder {Path(options.chart).resolve().parent}.")
