"""Formats of weights on a CPU: loss on a text, size, times by rows, and the acceptance that drafts need."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..engine import Engine
from ..errors import SettingsError
from ..loading.quantization import CPU_FORMATS
from ..loading.step_times import step_times
from ..metrics import expected_tokens_iid
from ..runners import Runner
from ..settings import Quantization
from ..units import gigabytes

_ROWS = (1, 2, 3, 5, 9)
_GAMMAS = (1, 2, 4, 8)
_CONTEXT = 64
_WINDOW = 256
_MOST_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model in one format: `loss` is the mean negative log probability of a token in nats, `same_rows`
    that of Runner. A short output layer has a share of the tokens, `covered`, and the loss is theirs; None if
    it has none of them.
    """

    model: str
    loss: float | None
    covered: float
    weights_bytes: int
    same_rows: bool | None


@dataclass(frozen=True, slots=True)
class FormatFigures:
    """The pair in one format: its models, seconds of bare forwards, and the acceptance rate from which drafts
    of each gamma are faster than none; None if no rate is enough.
    """

    quantization: Quantization
    models: list[ModelFigures]
    drafter_s: float
    target_s: dict[int, float]
    break_even: dict[int, float | None]


@dataclass(frozen=True, slots=True)
class FormatsReport:
    """All formats of a pair; `tokens` of the text were predicted."""

    text: str
    tokens: int
    formats: list[FormatFigures]


def formats(load: Callable[[Quantization], Engine], text: Path) -> FormatsReport:
    """Load the pair in each format and measure it. Raises SettingsError for a text that cannot be read or is
    too short, or a pair on a GPU, and the errors of loading.
    """
    try:
        words = text.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--formats: {text} cannot be read as text ({error}).") from error
    figures: list[FormatFigures] = []
    tokens = 0
    for quantization in CPU_FORMATS:
        engine = load(quantization)
        try:
            if engine.pair.target.device.type != "cpu":
                raise SettingsError("--formats is for pairs on a CPU. Add --device cpu.")
            ids = engine.pair.tokenizer.encode(words, add_special_tokens=False)[:_MOST_TOKENS]
            if len(ids) < 2:
                raise SettingsError(f"--formats: {text} has fewer than 2 tokens.")
            tokens = len(ids) - math.ceil(len(ids) / _WINDOW)
            figures.append(_measured(engine, quantization, ids))
        finally:
            engine.unload()
    return FormatsReport(str(text), tokens, figures)


def break_even(gamma: int, c: float, v: float) -> float | None:
    """Return the acceptance rate at which drafts of length gamma cost as much as they bring.

    c is a drafter step and v a verification of gamma + 1 rows, both in one-row target steps. None if even
    drafts that are all accepted cost more.
    """
    cost = gamma * c + v
    if cost > gamma + 1:
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if expected_tokens_iid(middle, gamma) < cost else (low, middle)
    return high


def formats_lines(report: FormatsReport) -> list[str]:
    """Return the report as lines of text, times in milliseconds."""
    lines = [f"loss in nats over {report.tokens:,} tokens of {report.text}; milliseconds by rows"]
    for figures in report.formats:
        rows = "  ".join(f"{count}: {1000 * seconds:.2f}" for count, seconds in figures.target_s.items())
        lines += ["", f"{figures.quantization}: target {rows}"]
        if len(figures.models) > 1:
            even = "  ".join(
                f"gamma {gamma}: {'never' if rate is None else f'{rate:.2f}'}"
                for gamma, rate in figures.break_even.items()
            )
            lines += [f"  drafter {1000 * figures.drafter_s:.2f}; drafts pay from an acceptance of {even}"]
        for model in figures.models:
            note = {None: "", True: ", rows bit-equal", False: ", rows not bit-equal"}[model.same_rows]
            loss = "–" if model.loss is None else f"{model.loss:.3f}"
            of = "" if model.covered == 1 else f" over the {100 * model.covered:.1f} % that it can put out"
            lines.append(f"  {model.model}: loss {loss}{of}, {gigabytes(model.weights_bytes)}{note}")
    return lines


def _measured(engine: Engine, quantization: Quantization, ids: list[int]) -> FormatFigures:
    pair = engine.pair
    names = (pair.target_name, pair.drafter_name)
    models = [_figures(name, runner, ids) for name, runner in zip(names, pair.runners, strict=False)]
    times = step_times(pair, min(_CONTEXT, pair.shared_context_length - 16), _ROWS)
    rates = {gamma: break_even(gamma, times.c, times.v(gamma + 1)) for gamma in _GAMMAS}
    return FormatFigures(quantization, models, times.drafter_s, times.target_s, rates)


@torch.inference_mode()
def _figures(name: str, runner: Runner, ids: list[int]) -> ModelFigures:
    losses = []
    for window in torch.tensor(ids).split(min(_WINDOW, runner.context_length)):
        logits = runner.forward(runner.new_cache(), window)
        losses.append(torch.nn.functional.cross_entropy(logits[:-1], window[1:], reduction="none").clone())
    of_tokens = torch.cat(losses)
    possible = of_tokens[~of_tokens.isposinf()]
    covered = possible.numel() / of_tokens.numel()
    loss = float(possible.mean()) if covered else None
    return ModelFigures(name, loss, covered, runner.weights_bytes, runner.same_rows)
