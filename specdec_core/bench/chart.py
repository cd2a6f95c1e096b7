"""Measured against predicted speedup over gamma, as a plain SVG that reads on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .figures import LaneFigures, Table

_WIDTH, _HEIGHT = 360, 250
"""Of one panel's plot."""
_LEFT, _TOP, _BOTTOM, _GAP = 48, 74, 60, 44

_STYLE = """
  svg { --ink: #1f2328; --faint: #d0d7de; --page: #ffffff; --measured: #0969da; --predicted: #bc4c00; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --faint: #3d444d; --page: #0d1117; --measured: #58a6ff; --predicted: #f0883e; }
  }
  .page { fill: var(--page); }
  text { fill: var(--ink); font: 12px system-ui, sans-serif; }
  .title { font-size: 14px; font-weight: 600; }
  .grid { stroke: var(--faint); stroke-width: 1; }
  .even { stroke: var(--ink); stroke-width: 1; }
  .line { fill: none; stroke-width: 2; }
  .measured { stroke: var(--measured); }
  .predicted { stroke: var(--predicted); stroke-dasharray: 6 4; }
  .iid { stroke: var(--predicted); stroke-width: 1.5; stroke-dasharray: 2 3; }
  .dot { fill: var(--measured); }
  .auto { stroke: var(--measured); stroke-dasharray: 1 4; stroke-width: 2; }
"""


def chart_svg(tables: Sequence[Table], title: str) -> str:
    """One panel for each temperature: measured speedup with its interval, the prediction from acceptance by
    position, the one with a single alpha, and the adaptive gamma as a level line.
    """
    panels = [(table, _curve(table)) for table in tables]
    top = max([1.2, *(value for _, curve in panels for lane in curve for value in _values(lane))])
    ceiling = (int(top * 5) + 1) / 5
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(title)}</text>',
    ]
    parts += _legend()
    for n, (table, curve) in enumerate(panels):
        parts += _panel(table, curve, _LEFT + n * (_WIDTH + _GAP), ceiling)
    return "\n".join([*parts, "</svg>\n"])


def _curve(table: Table) -> list[LaneFigures]:
    lanes = [lane for lane in table.lanes if lane.prediction is not None and lane.vs_baseline is not None]
    return sorted(lanes, key=lambda lane: lane.gamma)


def _values(lane: LaneFigures) -> list[float]:
    return [lane.vs_baseline.median, lane.prediction.speedup, lane.prediction.speedup_iid]


def _legend() -> list[str]:
    entries = [
        ("measured", "measured", 86),
        ("predicted", "predicted, alpha by position", 184),
        ("iid", "predicted, one alpha", 144),
        ("auto", "auto, measured", 110),
    ]
    parts, x = [], _LEFT
    for kind, label, width in entries:
        parts.append(f'<line class="line {kind}" x1="{x}" y1="42" x2="{x + 24}" y2="42"/>')
        parts.append(f'<text x="{x + 30}" y="46">{label}</text>')
        x += width + 30
    return parts


def _panel(table: Table, curve: Sequence[LaneFigures], left: float, ceiling: float) -> list[str]:
    gammas = [lane.gamma for lane in curve] or [1]
    first, last = min(gammas), max(gammas)

    def x(gamma: float) -> float:
        return left + _WIDTH * (0.5 if first == last else (gamma - first) / (last - first))

    def y(speedup: float) -> float:
        return _TOP + _HEIGHT * (1 - min(speedup, ceiling) / ceiling)

    parts = []
    for fifth in range(0, round(ceiling * 5) + 1, 1 if ceiling <= 2 else 2):
        level = fifth / 5
        kind = "even" if level == 1 else "grid"
        parts.append(
            f'<line class="{kind}" x1="{left}" x2="{left + _WIDTH}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y(level) + 4:.1f}" text-anchor="end">{level:.1f}</text>')
    bottom = _TOP + _HEIGHT
    for gamma in gammas:
        parts.append(f'<text x="{x(gamma):.1f}" y="{bottom + 18}" text-anchor="middle">{gamma}</text>')
    caption = f"gamma · temperature {table.temperature:g} · c {table.c:.2f}"
    parts.append(f'<text x="{left + _WIDTH / 2}" y="{bottom + 40}" text-anchor="middle">{caption}</text>')
    for kind, value in (
        ("iid", lambda lane: lane.prediction.speedup_iid),
        ("predicted", lambda lane: lane.prediction.speedup),
        ("measured", lambda lane: lane.vs_baseline.median),
    ):
        points = " ".join(f"{x(lane.gamma):.1f},{y(value(lane)):.1f}" for lane in curve)
        parts.append(f'<polyline class="line {kind}" points="{points}"/>')
    for lane in curve:
        ratio, at = lane.vs_baseline, f"{x(lane.gamma):.1f}"
        parts.append(
            f'<line class="measured" x1="{at}" x2="{at}" y1="{y(ratio.low):.1f}" y2="{y(ratio.high):.1f}"/>'
        )
        parts.append(
            f'<circle class="dot" cx="{at}" cy="{y(ratio.median):.1f}" r="3.5"><title>gamma {lane.gamma}: '
            f"measured {ratio.median:.2f}, predicted {lane.prediction.speedup:.2f}</title></circle>"
        )
    if table.auto is not None:
        level = f"{y(table.auto.vs_baseline.median):.1f}"
        parts.append(f'<line class="auto" x1="{left}" x2="{left + _WIDTH}" y1="{level}" y2="{level}"/>')
    return parts
