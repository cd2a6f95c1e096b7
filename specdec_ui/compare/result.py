"""The result of a comparison as HTML: the speedup in words, the charts, and the table over many prompts.

Every value is escaped; knows measurements, nothing of components.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape

from ..parts.charts import Bar, Curve, Point, bars, columns, curves
from ..parts.figures import number
from . import words as compare_words
from .comparison import PEERS, TITLES, Comparison, Costs, LaneAnswer
from .race import title

_Summary = Callable[[Sequence[float]], float | None]

_PEER = ' data-peer="true"'


def headline(comparison: Comparison) -> str:
    """Return each lane's speedup over plain decoding with its explanation, and remarks about the texts."""
    parts = []
    for lane in comparison.other_lanes:
        outcome = comparison.outcome(lane)
        verdict = compare_words.verdict(comparison.speedup(lane), outcome)
        interval = compare_words.interval(comparison.interval(lane))
        rates = f"{_rate(comparison, comparison.baseline)} → {_rate(comparison, lane)} tokens/s"
        parts.append(
            f'<div class="result" data-lane="{lane.name}" data-outcome="{outcome}"{_PEER * lane.is_peer}>'
            f'<p class="result-lane">{escape(title(lane))}</p>'
            f'<p class="result-verdict">{escape(verdict)} <span>{interval}</span> <span>{rates}</span></p>'
            f"<p>{escape(compare_words.explanation(comparison, lane))}</p>"
            f'<p class="result-same">{escape(compare_words.sameness(comparison, lane))}</p></div>'
        )
    parts += [f'<p class="result-note">{escape(note)}</p>' for note in compare_words.notes(comparison)]
    return f'<div class="results">{"".join(parts)}</div>'


def charts(comparison: Comparison) -> str:
    """Return charts of the speed, acceptance by position, tokens per round and predicted speedup by gamma."""
    drawn = [
        bars(
            "Tokens per second",
            [
                Bar(title(lane), comparison.rate(lane) or 0.0, _rate(comparison, lane), lane.name)
                for lane in comparison.lanes
            ],
            "Of decoding alone: plain decoding's own rate, and the others' at the same load.",
        )
    ]
    for lane in comparison.drafting_lanes:
        if lane.stats.tested:
            drawn += _lane_charts(comparison, lane)
    return f'<div class="charts">{"".join(drawn)}</div>'


def _rate(comparison: Comparison, lane: LaneAnswer) -> str:
    return number(comparison.rate(lane))


def _lane_charts(comparison: Comparison, lane: LaneAnswer) -> list[str]:
    whose = "" if len(comparison.drafting_lanes) == 1 else f", {lane.title.lower()}"
    rates = lane.stats.acceptance_by_position
    tested = max(at + 1 for at, rate in enumerate(rates) if rate is not None)
    unit = " %" if tested <= 6 else ""
    positions = [
        Bar(str(at + 1), rate or 0.0, number(None if rate is None else 100 * rate, 0, unit), "accepted")
        for at, rate in enumerate(rates[:tested])
    ]
    untested = f" No draft was tested beyond position {tested}." if tested < len(rates) else ""
    counts = Counter(lane.tokens_by_round)
    histogram = [
        Bar(str(tokens), counts[tokens], str(counts[tokens]), lane.name)
        for tokens in range(1, max(counts) + 1)
    ]
    drawn = [
        columns(
            f"Acceptance by draft position{whose}",
            positions,
            "position in the draft",
            top=1.0,
            note=f"Of the drafts tested at that position, the share that stood, in %.{untested}",
        ),
        columns(
            f"Tokens per round{whose}",
            histogram,
            "tokens that a round gave",
            note=f"Number of rounds; {lane.stats.block_efficiency:.2f} tokens on average.",
        ),
    ]
    if (prediction := lane.prediction) and lane.costs and (speedup := comparison.speedup(lane)):
        drawn.append(
            curves(
                f"Predicted speedup over gamma{whose}",
                [
                    Curve("from the acceptance at each position", prediction.by_position, "measured"),
                    Curve("one acceptance rate for all (Leviathan et al.)", prediction.one_alpha, "theory"),
                ],
                [Point(f"measured {speedup:.2f}×", lane.mean_gamma, speedup)],
                "gamma, drafts in a round",
                1.0,
                f"tokens per round ÷ (γc + v), with this answer's acceptance and measured costs: "
                f"c = {lane.costs.c:.2f}, v = {_verify_cost(lane, lane.costs):.2f}. What sampling and Python "
                "take is not in it.",
            )
        )
    return drawn


def _verify_cost(lane: LaneAnswer, costs: Costs) -> float:
    return costs.v[min(round(lane.mean_gamma), len(costs.v) - 1)]


def table(comparisons: Sequence[Comparison], prompts: int) -> str:
    """Return a table with a row a prompt, then mean and spread; `prompts` is the length of the list."""
    if not comparisons:
        return ""
    names = list(dict.fromkeys(lane.name for comparison in comparisons for lane in comparison.other_lanes))
    heads = "<th scope='col'>Prompt</th><th scope='col'>Plain tokens/s</th>"
    for name in names:
        heads += f"<th scope='col'>{escape(TITLES[name])} tokens/s</th><th scope='col'>Speedup</th>"
        if name not in PEERS:
            heads += "<th scope='col'>Acceptance</th><th scope='col'>Tokens per round</th>"
        heads += "<th scope='col'>Same text</th>"
    rows = "".join(_row(comparison, names) for comparison in comparisons)
    footer = "".join(
        f'<tr><th scope="row">{label}</th>{_summary_cells(comparisons, names, summarize)}</tr>'
        for label, summarize in (("Mean", statistics.fmean), ("Spread (standard deviation)", _spread))
    )
    return (
        f'<p class="list-count">{len(comparisons)} of {prompts} prompts compared.</p>'
        '<div class="report-scroll" role="region" aria-label="Comparison of the prompts" tabindex="0">'
        f'<table class="report list-table"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody>'
        f"<tfoot>{footer}</tfoot></table></div>"
    )


def _row(comparison: Comparison, names: Sequence[str]) -> str:
    prompt = comparison.prompt if len(comparison.prompt) <= 80 else comparison.prompt[:79] + "…"
    cells = _cell(_rate(comparison, comparison.baseline))
    lanes = {lane.name: lane for lane in comparison.other_lanes}
    for name in names:
        lane = lanes.get(name)
        if lane is None:
            cells += _cell("–") * (3 if name in PEERS else 5)
            continue
        alpha, same = lane.stats.acceptance_rate, comparison.divergence(lane) is None
        cells += _cell(_rate(comparison, lane))
        interval = compare_words.interval(comparison.interval(lane))
        cells += _cell(f"{number(comparison.speedup(lane), 2, '×')} {interval}".rstrip())
        if not lane.is_peer:
            cells += _cell(number(None if alpha is None else 100 * alpha, 0, " %"))
            cells += _cell(number(lane.stats.block_efficiency, 2))
        cells += _cell("yes" if same else "no")
    return f'<tr><th scope="row">{escape(prompt)}</th>{cells}</tr>'


def _summary_cells(comparisons: Sequence[Comparison], names: Sequence[str], summarize: _Summary) -> str:
    def cell(values: Iterable[float | None], digits: int, unit: str = "", scale: float = 1.0) -> str:
        known = [scale * value for value in values if value is not None]
        return _cell(number(summarize(known) if known else None, digits, unit))

    cells = cell([c.baseline.stats.tokens_per_second for c in comparisons], 1)
    for name in names:
        lanes = [(c, lane) for c in comparisons for lane in c.other_lanes if lane.name == name]
        cells += cell([c.rate(lane) for c, lane in lanes], 1)
        cells += cell([c.speedup(lane) for c, lane in lanes], 2, "×")
        if name not in PEERS:
            cells += cell([lane.stats.acceptance_rate for _, lane in lanes], 0, " %", 100)
            cells += cell([lane.stats.block_efficiency for _, lane in lanes], 2)
        same = sum(c.divergence(lane) is None for c, lane in lanes)
        cells += _cell(f"{same} of {len(lanes)}" if summarize is statistics.fmean else "")
    return cells


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"
