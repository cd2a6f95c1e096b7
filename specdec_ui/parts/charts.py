"""Charts as inline SVG in the page's colours, each with its values in words for screen readers.

Values in, HTML out, every text escaped; knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor

import specdec_core as sd

WIDTH = 290
"""Width of a drawing, in the units of its text: small, so that the text can be read on a phone."""
HEIGHT = 190
"""Height of the drawings of `columns` and `curves`, in the same units."""
_LEFT, _TOP, _BOTTOM = 40, 16, 36


@dataclass(frozen=True)
class Bar:
    """A bar or column. `value_text` is the value as text; `kind` picks the colour (plain, model, ngram,
    accepted).
    """

    label: str
    value: float
    value_text: str
    kind: str


@dataclass(frozen=True)
class Curve:
    """y over x = 0, 1, 2 …; `kind` picks the stroke (measured: solid with dots, theory: dashed)."""

    label: str
    values: Sequence[float]
    kind: str


@dataclass(frozen=True)
class Point:
    """A labelled point beside the curves."""

    label: str
    x: float
    y: float


def bars(title: str, items: Sequence[Bar], note: str = "") -> str:
    """Return horizontal bars, each with its name above it and its value at its end."""
    top = max((bar.value for bar in items), default=0) or 1
    room = WIDTH - 52
    elements = []
    for at, bar in enumerate(items):
        y = 8 + 46 * at
        width = max(2.0, room * bar.value / top)
        elements += [
            sd.svg_element("text", bar.label, x=0, y=y + 10),
            sd.svg_element("rect", class_=f"chart-{bar.kind}", x=0, y=y + 17, width=width, height=16, rx=3),
            sd.svg_element("text", bar.value_text, class_="chart-value", x=width + 6, y=y + 30),
        ]
    description = "; ".join(f"{bar.label} {bar.value_text}" for bar in items)
    return _figure(title, description, elements, 8 + 46 * len(items), note)


def columns(title: str, items: Sequence[Bar], axis: str, top: float | None = None, note: str = "") -> str:
    """Return columns side by side; a column of the value `top` fills the height."""
    top = top or max((bar.value for bar in items), default=0) or 1
    base = HEIGHT - _BOTTOM
    step = (WIDTH - 8) / max(len(items), 1)
    width = min(44.0, 0.68 * step)
    elements = [sd.svg_element("line", class_="chart-axis", x1=0, x2=WIDTH, y1=base, y2=base)]
    for at, bar in enumerate(items):
        middle = 4 + step * (at + 0.5)
        height = (base - _TOP - 6) * min(bar.value / top, 1.0)
        y = base - height
        elements += [
            sd.svg_element(
                "rect",
                class_=f"chart-{bar.kind}",
                x=middle - width / 2,
                y=y,
                width=width,
                height=max(height, 1.0),
                rx=2,
            ),
            sd.svg_element(
                "text", bar.value_text, class_="chart-value", text_anchor="middle", x=middle, y=y - 5
            ),
            sd.svg_element("text", bar.label, text_anchor="middle", x=middle, y=base + 14),
        ]
    elements.append(_axis_name(axis))
    description = f"{axis}: " + "; ".join(f"{bar.label}: {bar.value_text}" for bar in items)
    return _figure(title, description, elements, HEIGHT, note)


def curves(
    title: str, items: Sequence[Curve], points: Sequence[Point], axis: str, level: float, note: str = ""
) -> str:
    """Return curves over 0, 1, 2 …, a dotted line at `level`, and measured points as diamonds."""
    last = max([len(curve.values) - 1 for curve in items] + [1])
    values = [*(v for curve in items for v in curve.values), *(point.y for point in points), level]
    margin = 0.1 * (max(values) - min(values) or 1)
    low, high = max(0.0, min(values) - margin), max(values) + margin
    base = HEIGHT - _BOTTOM

    def x_of(x: float) -> float:
        return _LEFT + (WIDTH - _LEFT - 14) * x / last

    def y_of(y: float) -> float:
        return base - (base - _TOP) * (y - low) / (high - low)

    elements = []
    for value in ticks(low, high):
        y = y_of(value)
        elements += [
            sd.svg_element("line", class_="chart-grid", x1=_LEFT, x2=WIDTH, y1=y, y2=y),
            sd.svg_element("text", f"{value:g}×", text_anchor="end", x=_LEFT - 6, y=y + 4),
        ]
    y = y_of(level)
    elements.append(sd.svg_element("line", class_="chart-level", x1=_LEFT, x2=WIDTH, y1=y, y2=y))
    elements += [
        sd.svg_element("text", str(x), text_anchor="middle", x=x_of(x), y=base + 14)
        for x in range(last + 1)
        if last <= 10 or x % 2 == 0
    ]
    for curve in items:
        elements += _curve(curve, x_of, y_of)
    for point in points:
        elements += _diamond(point.label, x_of(point.x), y_of(point.y))
    elements.append(_axis_name(axis))
    description = "; ".join(
        [f"{c.label}: " + ", ".join(f"{x}: {v:.2f}" for x, v in enumerate(c.values)) for c in items]
        + [f"{p.label} at {p.x:.1f}" for p in points]
    )
    return _figure(title, f"{axis}: {description}", elements, HEIGHT, note, "".join(map(_key, items)))


def ticks(low: float, high: float) -> list[float]:
    """Return round values between `low` and `high`, at most six."""
    steps = (factor * 10.0**power for power in range(-2, 6) for factor in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 5)
    return [round(at * step, 6) for at in range(ceil(low / step), floor(high / step) + 1)]


def _curve(
    curve: Curve, x_of: Callable[[float], float], y_of: Callable[[float], float]
) -> list[sd.SvgElement]:
    vertices = [(x_of(x), y_of(y)) for x, y in enumerate(curve.values)]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in vertices)
    elements = [sd.svg_element("polyline", class_=f"chart-{curve.kind}", points=line)]
    if curve.kind == "measured":
        elements += [sd.svg_element("circle", class_="chart-dot", cx=x, cy=y, r=3) for x, y in vertices]
    return elements


def _diamond(label: str, x: float, y: float) -> list[sd.SvgElement]:
    label_x, anchor = (x + 9, "start") if x < 0.7 * WIDTH else (x - 9, "end")
    return [
        sd.svg_element("path", class_="chart-point", d=f"M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"),
        sd.svg_element(
            "text", label, class_="chart-value chart-halo", text_anchor=anchor, x=label_x, y=y - 7
        ),
    ]


def _axis_name(axis: str) -> sd.SvgElement:
    return sd.svg_element("text", axis, class_="chart-name", text_anchor="middle", x=WIDTH / 2, y=HEIGHT - 5)


def _key(curve: Curve) -> str:
    sample = sd.svg_element("polyline", class_=f"chart-{curve.kind}", points="1,4 25,4")
    line = sd.svg_element("svg", sample, width=26, height=8, aria_hidden="true")
    return f'<span class="chart-key">{line}{escape(curve.label)}</span>'


def _figure(
    title: str, description: str, elements: Sequence[sd.SvgElement], height: int, note: str, keys: str = ""
) -> str:
    note = f'<p class="chart-note">{escape(note)}</p>' if note else ""
    keys = f'<p class="chart-keys">{keys}</p>' if keys else ""
    drawing = sd.svg_element(
        "svg", *elements, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=f"{title}. {description}"
    )
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{drawing}{keys}{note}</figure>'
