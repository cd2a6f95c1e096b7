"""Charts as inline SVG in the page's own colours, each with its values in words for those who cannot see it.

Values in, HTML out, every text escaped; knows nothing of what the values mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor

WIDTH = 290
"""Of the drawing, in the units of its text: small, so that the text can be read on a phone."""
HEIGHT = 190
_LEFT, _TOP, _BOTTOM = 40, 16, 36


@dataclass(frozen=True)
class Bar:
    """`shown` is the value as text; `kind` picks the colour (plain, model, ngram, accepted)."""

    label: str
    value: float
    shown: str
    kind: str


@dataclass(frozen=True)
class Curve:
    """y over x = 0, 1, 2 …; `kind` picks the stroke (measured: solid with dots, theory: dashed)."""

    label: str
    values: Sequence[float]
    kind: str


@dataclass(frozen=True)
class Point:
    label: str
    x: float
    y: float


def bars(title: str, items: Sequence[Bar], note: str = "") -> str:
    """Horizontal bars, each with its name above it and its value at its end."""
    top = max((bar.value for bar in items), default=0) or 1
    room = WIDTH - 52
    parts = []
    for at, bar in enumerate(items):
        y = 8 + 46 * at
        width = max(2.0, room * bar.value / top)
        parts.append(
            f'<text x="0" y="{y + 10}">{escape(bar.label)}</text>'
            f'<rect class="chart-{bar.kind}" x="0" y="{y + 17}" width="{width:.1f}" height="16" rx="3"/>'
            f'<text class="chart-value" x="{width + 6:.1f}" y="{y + 30}">{escape(bar.shown)}</text>'
        )
    said = "; ".join(f"{bar.label} {bar.shown}" for bar in items)
    return _figure(title, said, "".join(parts), 8 + 46 * len(items), note)


def columns(title: str, items: Sequence[Bar], axis: str, top: float | None = None, note: str = "") -> str:
    """Columns side by side; `top` is the value that would reach the upper end."""
    top = top or max((bar.value for bar in items), default=0) or 1
    base = HEIGHT - _BOTTOM
    step = (WIDTH - 8) / max(len(items), 1)
    width = min(44.0, 0.68 * step)
    parts = [f'<line class="chart-axis" x1="0" x2="{WIDTH}" y1="{base}" y2="{base}"/>']
    for at, bar in enumerate(items):
        middle = 4 + step * (at + 0.5)
        height = (base - _TOP - 6) * min(bar.value / top, 1)
        parts.append(
            f'<rect class="chart-{bar.kind}" x="{middle - width / 2:.1f}" y="{base - height:.1f}" '
            f'width="{width:.1f}" height="{max(height, 1):.1f}" rx="2"/>'
            f'<text class="chart-value" text-anchor="middle" x="{middle:.1f}" y="{base - height - 5:.1f}">'
            f'{escape(bar.shown)}</text><text text-anchor="middle" x="{middle:.1f}" y="{base + 14}">'
            f"{escape(bar.label)}</text>"
        )
    parts.append(f'<text class="chart-name" text-anchor="middle" x="{WIDTH / 2}" y="{HEIGHT - 5}">'
                 f"{escape(axis)}</text>")  # fmt: skip
    said = f"{axis}: " + "; ".join(f"{bar.label}: {bar.shown}" for bar in items)
    return _figure(title, said, "".join(parts), HEIGHT, note)


def curves(
    title: str, items: Sequence[Curve], points: Sequence[Point], axis: str, level: float, note: str = ""
) -> str:
    """Curves over 0, 1, 2 …, a dotted line at `level`, and measured points as diamonds."""
    last = max([len(curve.values) - 1 for curve in items] + [1])
    highest = max([*(v for c in items for v in c.values), *(p.y for p in points), level])
    lowest = min([*(v for c in items for v in c.values), *(p.y for p in points), level])
    high, low = highest + 0.1 * (highest - lowest or 1), max(0.0, lowest - 0.1 * (highest - lowest or 1))
    base = HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (WIDTH - _LEFT - 14) * x / last,
            base - (base - _TOP) * (y - low) / (high - low),
        )

    parts = []
    for value in _ticks(low, high):
        y = place(0, value)[1]
        parts.append(
            f'<line class="chart-grid" x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text text-anchor="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{value:g}×</text>'
        )
    y = place(0, level)[1]
    parts.append(f'<line class="chart-level" x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for x in range(last + 1):
        if last <= 10 or x % 2 == 0:
            parts.append(f'<text text-anchor="middle" x="{place(x, low)[0]:.1f}" y="{base + 14}">{x}</text>')
    for curve in items:
        spots = [place(x, y) for x, y in enumerate(curve.values)]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="chart-{curve.kind}" points="{line}"/>')
        if curve.kind == "measured":
            parts += [f'<circle class="chart-dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in spots]
    for point in points:
        x, y = place(point.x, point.y)
        label_x, anchor = (x + 9, "start") if x < 0.7 * WIDTH else (x - 9, "end")
        parts.append(
            f'<path class="chart-point" d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z"/>'
            f'<text class="chart-value chart-halo" text-anchor="{anchor}" x="{label_x:.1f}" '
            f'y="{y - 7:.1f}">{escape(point.label)}</text>'
        )
    parts.append(f'<text class="chart-name" text-anchor="middle" x="{WIDTH / 2}" y="{HEIGHT - 5}">'
                 f"{escape(axis)}</text>")  # fmt: skip
    said = "; ".join(
        [f"{c.label}: " + ", ".join(f"{x}: {v:.2f}" for x, v in enumerate(c.values)) for c in items]
        + [f"{p.label} at {p.x:.1f}" for p in points]
    )
    keys = "".join(
        f'<span class="chart-key"><svg width="26" height="8" aria-hidden="true">'
        f'<polyline class="chart-{c.kind}" points="1,4 25,4"/></svg>{escape(c.label)}</span>'
        for c in items
    )
    return _figure(title, f"{axis}: {said}", "".join(parts), HEIGHT, note, keys)


def _ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high`, at most six."""
    steps = (factor * 10**power for power in range(-2, 6) for factor in (1, 2, 5))
    step = next(step for step in steps if (high - low) / step <= 5)
    return [round(at * step, 6) for at in range(ceil(low / step), floor(high / step) + 1)]


def _figure(title: str, said: str, drawing: str, height: int, note: str, keys: str = "") -> str:
    note = f'<p class="chart-note">{escape(note)}</p>' if note else ""
    keys = f'<p class="chart-keys">{keys}</p>' if keys else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}. {escape(said)}">'
        f"{drawing}</svg>{keys}{note}</figure>"
    )
