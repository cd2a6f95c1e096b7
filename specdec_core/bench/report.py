"""A bench report in lines for people: what was measured with what, and one table for each temperature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..loading.assemble import EngineInfo
from .figures import LaneFigures, Table
from .lanes import Ratio
from .roofline import Roofline

_NONE = "–"


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes. `caches` is the most that one conversation's took; `peak` is CUDA's, or the process's."""

    target_weights: int
    drafter_weights: int | None
    caches: int
    peak: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything that one run measured."""

    command: str
    date: str
    machine: str
    versions: dict[str, str]
    pair: EngineInfo
    text: str
    max_new_tokens: int
    repetitions: int
    tables: list[Table]
    memory: Memory
    roofline: list[Roofline]


def _cell(form: str, value: Callable[[LaneFigures], Any]) -> Callable[[LaneFigures], str]:
    def cell(lane: LaneFigures) -> str:
        got = value(lane)
        return _NONE if got is None else form.format(got)

    return cell


def _ratio(value: Callable[[LaneFigures], Ratio | None]) -> Callable[[LaneFigures], str]:
    return _cell("{:.2f}", lambda lane: r.median if (r := value(lane)) is not None else None)


def _of(part: str, figure: str) -> Callable[[LaneFigures], Any]:
    def value(lane: LaneFigures) -> Any:
        held = getattr(lane, part)
        return getattr(held, figure) if held is not None else None

    return value


_COLUMNS: dict[str, Callable[[LaneFigures], str]] = {
    "": lambda lane: lane.lane,
    "tokens/s": _cell("{:.0f}", lambda lane: lane.decode_rate),
    "with prefill": _cell("{:.0f}", lambda lane: lane.answer_rate),
    "first ms": _cell(
        "{:.1f}", lambda lane: t * 1000 if (t := lane.time_to_first_token_s) is not None else None
    ),
    "÷ baseline": _ratio(lambda lane: lane.vs_baseline),
    "predicted": _cell("{:.2f}", _of("prediction", "speedup")),
    "one alpha": _cell("{:.2f}", _of("prediction", "speedup_iid")),
    "meas ÷ pred": _cell("{:.2f}", _of("prediction", "measured_over_predicted")),
    "alpha": _cell("{:.3f}", _of("drafts", "alpha")),
    "tau": _cell("{:.2f}", _of("drafts", "tau")),
    "v": _cell("{:.2f}", _of("prediction", "v")),
    "overhead": _cell("{:.0%}", lambda lane: lane.overhead_share),
    "÷ transformers": _ratio(lambda lane: lane.vs_transformers),
    "÷ assisted": _ratio(lambda lane: lane.vs_assisted),
}


def lines(report: BenchReport) -> list[str]:
    pair = report.pair
    quantized = [q for q in (pair.target_quantization, pair.drafter_quantization) if q]
    found = [
        f"$ {report.command}",
        f"{pair.title}, {pair.runner} runner, {pair.dtype}, quantization {' / '.join(quantized)}",
        f"{report.date}, {report.machine}, " + ", ".join(f"{k} {v}" for k, v in report.versions.items()),
        f"{report.repetitions} answers a lane of up to {report.max_new_tokens} tokens to {report.text} "
        "prompts, lanes in rotating order; ratios are medians of paired ratios",
    ]
    if pair.runner_reason:
        found.append(f"no faster runner: {pair.runner_reason}")
    for table in report.tables:
        found += ["", *_table_lines(table)]
    return [*found, "", *_memory_lines(report.memory), *_roofline_lines(report.roofline)]


def _table_lines(table: Table) -> list[str]:
    shown = {
        heading: cell
        for heading, cell in _COLUMNS.items()
        if not heading or any(cell(lane) != _NONE for lane in table.lanes)
    }
    cells = [list(shown), *([cell(lane) for cell in shown.values()] for lane in table.lanes)]
    found = [f"temperature {table.temperature:g}", *_aligned(cells)]
    for lane in table.lanes:
        if lane.drafts is not None and lane.gamma in ("auto", max(_fixed(table), default=0)):
            rates = [_NONE if rate is None else f"{rate:.2f}" for rate in lane.drafts.alpha_by_position]
            found.append(f"alpha by position, {lane.lane}: {' '.join(rates)}")
    if table.auto is not None:
        auto = table.auto
        found.append(
            f"auto ÷ the best fixed gamma ({auto.best_fixed}): {_with_interval(auto.vs_best_fixed)}; "
            f"÷ baseline: {_with_interval(auto.vs_baseline)}"
        )
    verify = "  ".join(
        f"{rows}: {1000 * seconds:.2f} ms ({table.v[rows]:.2f})" for rows, seconds in table.verify_s.items()
    )
    found.append(f"target forward by rows, after {table.context} tokens (v): {verify}")
    if table.drafter_step_s:
        found.append(f"drafter step: {1000 * table.drafter_step_s:.2f} ms (c {table.c:.3f})")
    return found


def _fixed(table: Table) -> list[int]:
    return [lane.gamma for lane in table.lanes if lane.gamma != "auto" and lane.drafts is not None]


def _with_interval(ratio: Ratio) -> str:
    return f"{ratio.median:.3f} (95 % interval {ratio.low:.3f} to {ratio.high:.3f}, {ratio.pairs} pairs)"


def _memory_lines(memory: Memory) -> list[str]:
    drafter = f" + {_mb(memory.drafter_weights)}" if memory.drafter_weights is not None else ""
    return [
        f"memory: weights {_mb(memory.target_weights)}{drafter}, caches of a conversation "
        f"{_mb(memory.caches)}, peak {_mb(memory.peak)}"
    ]


def _roofline_lines(models: Sequence[Roofline]) -> list[str]:
    return [
        f"{r.model}: {_mb(r.bytes_read)} of weights a step ÷ {r.bandwidth / 1e9:.0f} GB/s (measured copy) = "
        f"{1000 * r.floor_s:.2f} ms; a one-row step takes {1000 * r.step_s:.2f} ms, "
        f"{r.times_the_floor:.2f} times that"
        for r in models
    ]


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]
