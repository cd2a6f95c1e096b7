"""Measured against predicted speedup over gamma, as a plain SVG that reads on light and on dark pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ratio import Ratio
from ..svg import SvgElement, svg_element
from .figures import LaneFigures, PredictedSpeedup, Table

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

_Scale = Callable[[float], float]
"""From a value to its place on an axis."""


@dataclass(frozen=True, slots=True)
class _Point:
    """A fixed gamma with its measured and its predicted speedup."""

    gamma: int
    measured: Ratio
    prediction: PredictedSpeedup


def chart_svg(tables: Sequence[Table], title: str) -> str:
    """Return one panel for each temperature: measured speedup with its interval, the prediction from
    acceptance by position, the one with a single alpha, and the adaptive gamma as a level line.
    """
    panels = [(table, _curve(table.lanes)) for table in tables]
    top = max([1.2, *(value for _, curve in panels for point in curve for value in _values(point))])
    ceiling = (int(top * 5) + 1) / 5
    width = _LEFT + len(panels) * (_WIDTH + _GAP)
    height = _TOP + _HEIGHT + _BOTTOM
    elements = [
        svg_element("style", _STYLE),
        svg_element("rect", class_="page", width=width, height=height),
        svg_element("text", title, class_="title", x=_LEFT, y=24),
        *_legend(),
    ]
    for n, (table, curve) in enumerate(panels):
        elements += _panel(table, curve, _LEFT + n * (_WIDTH + _GAP), ceiling)
    drawing = svg_element(
        "svg",
        *elements,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        role="img",
        aria_label=title,
    )
    return drawing + "\n"


def _curve(lanes: Sequence[LaneFigures]) -> list[_Point]:
    points = [
        _Point(lane.gamma, lane.vs_baseline, lane.prediction)
        for lane in lanes
        if lane.gamma != "auto" and lane.prediction is not None and lane.vs_baseline is not None
    ]
    return sorted(points, key=lambda point: point.gamma)


def _values(point: _Point) -> list[float]:
    return [point.measured.median, point.prediction.speedup, point.prediction.speedup_iid]


def _legend() -> list[SvgElement]:
    entries = [
        ("measured", "measured", 86),
        ("predicted", "predicted, alpha by position", 184),
        ("iid", "predicted, one alpha", 144),
        ("auto", "auto, measured", 110),
    ]
    elements, x = [], _LEFT
    for kind, label, width in entries:
        elements.append(svg_element("line", class_=f"line {kind}", x1=x, y1=42, x2=x + 24, y2=42))
        elements.append(svg_element("text", label, x=x + 30, y=46))
        x += width + 30
    return elements


def _panel(table: Table, curve: Sequence[_Point], left: int, ceiling: float) -> list[SvgElement]:
    gammas = [point.gamma for point in curve] or [1]
    first, last = min(gammas), max(gammas)

    def x(gamma: float) -> float:
        return left + _WIDTH * (0.5 if first == last else (gamma - first) / (last - first))

    def y(speedup: float) -> float:
        return _TOP + _HEIGHT * (1 - min(speedup, ceiling) / ceiling)

    elements = _axes(table, gammas, left, ceiling, x, y)
    for kind, value in _CURVES:
        points = " ".join(f"{x(point.gamma):.1f},{y(value(point)):.1f}" for point in curve)
        elements.append(svg_element("polyline", class_=f"line {kind}", points=points))
    for point in curve:
        ratio, at = point.measured, x(point.gamma)
        words = f"gamma {point.gamma}: measured {ratio.median:.2f}, predicted {point.prediction.speedup:.2f}"
        elements.append(
            svg_element("line", class_="measured", x1=at, x2=at, y1=y(ratio.low), y2=y(ratio.high))
        )
        elements.append(
            svg_element("circle", svg_element("title", words), class_="dot", cx=at, cy=y(ratio.median), r=3.5)
        )
    if table.auto is not None:
        level = y(table.auto.vs_baseline.median)
        elements.append(svg_element("line", class_="auto", x1=left, x2=left + _WIDTH, y1=level, y2=level))
    return elements


def _axes(
    table: Table, gammas: Sequence[int], left: int, ceiling: float, x: _Scale, y: _Scale
) -> list[SvgElement]:
    elements = []
    for fifth in range(0, round(ceiling * 5) + 1, 1 if ceiling <= 2 else 2):
        level = fifth / 5
        kind, at = "even" if level == 1 else "grid", y(level)
        elements.append(svg_element("line", class_=kind, x1=left, x2=left + _WIDTH, y1=at, y2=at))
        elements.append(svg_element("text", f"{level:.1f}", x=left - 8, y=at + 4, text_anchor="end"))
    bottom = _TOP + _HEIGHT
    elements += [
        svg_element("text", str(gamma), x=x(gamma), y=bottom + 18, text_anchor="middle") for gamma in gammas
    ]
    caption = f"gamma · temperature {table.temperature:g} · c {table.c:.2f}"
    elements.append(svg_element("text", caption, x=left + _WIDTH / 2, y=bottom + 40, text_anchor="middle"))
    return elements


_CURVES: tuple[tuple[str, Callable[[_Point], float]], ...] = (
    ("iid", lambda point: point.prediction.speedup_iid),
    ("predicted", lambda point: point.prediction.speedup),
    ("measured", lambda point: point.measured.median),
)
