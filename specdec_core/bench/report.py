"""A bench report and its text form: the surroundings, one table for each temperature, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..loading.engine_info import EngineInfo
from ..ratio import Ratio
from .figures import Drafts, LaneFigures, PredictedSpeedup, Table
from .machine import Memory
from .roofline import Roofline

_NONE = "–"


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All results of a run, with the command, machine and versions that produced them."""

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


_Cell = Callable[[LaneFigures], str]


def _cell(form: str, value: Callable[[LaneFigures], float | None]) -> _Cell:
    def cell(lane: LaneFigures) -> str:
        number = value(lane)
        return _NONE if number is None else form.format(number)

    return cell


def _ratio(value: Callable[[LaneFigures], Ratio | None]) -> _Cell:
    return _cell("{:.2f}", lambda lane: r.median if (r := value(lane)) is not None else None)


def _drafts(form: str, value: Callable[[Drafts], float | None]) -> _Cell:
    return _cell(form, lambda lane: value(lane.drafts) if lane.drafts is not None else None)


def _prediction(value: Callable[[PredictedSpeedup], float | None]) -> _Cell:
    return _cell("{:.2f}", lambda lane: value(lane.prediction) if lane.prediction is not None else None)


_COLUMNS: dict[str, _Cell] = {
    "": lambda lane: lane.lane,
    "tokens/s": _cell("{:.0f}", lambda lane: lane.decode_rate),
    "with prefill": _cell("{:.0f}", lambda lane: lane.answer_rate),
    "first ms": _cell(
        "{:.1f}", lambda lane: t * 1000 if (t := lane.time_to_first_token_s) is not None else None
    ),
    "÷ baseline": _ratio(lambda lane: lane.vs_baseline),
    "predicted": _prediction(lambda prediction: prediction.speedup),
    "one alpha": _prediction(lambda prediction: prediction.speedup_iid),
    "meas ÷ pred": _prediction(lambda prediction: prediction.measured_over_predicted),
    "alpha": _drafts("{:.3f}", lambda drafts: drafts.alpha),
    "tau": _drafts("{:.2f}", lambda drafts: drafts.tau),
    "v": _prediction(lambda prediction: prediction.v),
    "overhead": _cell("{:.0%}", lambda lane: lane.overhead_share),
    "÷ transformers": _ratio(lambda lane: lane.vs_transformers),
    "÷ assisted": _ratio(lambda lane: lane.vs_assisted),
    "÷ llama.cpp": _ratio(lambda lane: lane.vs_llama_cpp),
}


def report_lines(report: BenchReport) -> list[str]:
    """Return the report as lines of text, its tables aligned for a monospaced font."""
    pair = report.pair
    quantized = [q for q in (pair.target_quantization, pair.drafter_quantization) if q]
    lines = [
        f"$ {report.command}",
        f"{pair.title}, {pair.runner} runner, {pair.dtype}, quantization {' / '.join(quantized)}",
        f"{report.date}, {report.machine}, " + ", ".join(f"{k} {v}" for k, v in report.versions.items()),
        f"{report.repetitions} answers a lane of up to {report.max_new_tokens} tokens to {report.text} "
        "prompts, lanes in rotating order; ratios are medians of paired ratios",
    ]
    if pair.runner_reason:
        lines.append(f"no faster runner: {pair.runner_reason}")
    for table in report.tables:
        lines += ["", *_table_lines(table)]
    return [*lines, "", *_memory_lines(report.memory), *_roofline_lines(report.roofline)]


def _table_lines(table: Table) -> list[str]:
    columns = {
        heading: cell
        for heading, cell in _COLUMNS.items()
        if not heading or any(cell(lane) != _NONE for lane in table.lanes)
    }
    cells = [list(columns), *([cell(lane) for cell in columns.values()] for lane in table.lanes)]
    lines = [f"temperature {table.temperature:g}", *_aligned(cells)]
    for lane in table.lanes:
        if lane.drafts is not None and lane.gamma in ("auto", max(_fixed(table), default=0)):
            rates = [_NONE if rate is None else f"{rate:.2f}" for rate in lane.drafts.alpha_by_position]
            lines.append(f"alpha by position, {lane.lane}: {' '.join(rates)}")
    if table.auto is not None:
        auto = table.auto
        lines.append(
            f"auto ÷ the best fixed gamma ({auto.best_fixed}): {_with_interval(auto.vs_best_fixed)}; "
            f"÷ baseline: {_with_interval(auto.vs_baseline)}"
        )
    verify = "  ".join(
        f"{rows}: {1000 * seconds:.2f} ms ({table.v[rows]:.2f})" for rows, seconds in table.verify_s.items()
    )
    lines.append(f"target forward by rows, after {table.context} tokens (v): {verify}")
    if table.drafter_step_s:
        lines.append(f"drafter step: {1000 * table.drafter_step_s:.2f} ms (c {table.c:.3f})")
    return lines


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
