"""Options of the bench command, and their validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import SettingsError
from ..settings import Quantization, Settings, Verification


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """The bench command's arguments, named as on the command line.

    The pair is a preset, or a target with or without a drafter, or is made from the two config files of
    `shapes`. `exactness` (a number of prompts), `history` (lengths in tokens) and `gpu_checks` replace the
    lanes by another measurement.
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
    history: Sequence[int] | None
    gpu_checks: bool


def require_valid(options: BenchOptions) -> None:
    """Raise SettingsError, naming the option, for a value out of range or a contradiction."""
    if options.repetitions < 1:
        raise SettingsError(f"--repetitions must be at least 1, not {options.repetitions}.")
    if options.shapes and (options.preset or options.target or options.drafter):
        raise SettingsError("--shapes makes its own pair; name neither a preset nor models beside it.")
    if options.shapes and options.drafter_noise:
        raise SettingsError("--drafter-noise is for loaded pairs; with --shapes choose a smaller --alpha.")
    if options.drafter_noise < 0:
        raise SettingsError(f"--drafter-noise must be at least 0, not {options.drafter_noise:g}.")
    if not 0 <= options.alpha <= 1:
        raise SettingsError(f"--alpha must be from 0 to 1, not {options.alpha:g}.")
    for gamma in [*options.gamma, *options.peer_gamma]:
        Settings(gamma=gamma)
    for temperature in options.temperature:
        Settings(temperature=temperature)
    Settings(max_new_tokens=options.max_new_tokens)
    if options.chart and not Path(options.chart).resolve().parent.is_dir():
        raise SettingsError(f"--chart: there is no folder {Path(options.chart).resolve().parent}.")
