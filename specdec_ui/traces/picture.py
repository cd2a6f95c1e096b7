"""A trace as a picture to share: one SVG file that needs nothing else, with the marks of the token view.

Set in columns of a fixed width, so that it looks alike wherever it is opened. Text in, escaped XML out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from specdec_core.trace import Token

from ..parts.figures import number
from ..parts.token_view import LEGEND
from ..parts.trace_files import Trace, drafting_in_words

COLUMNS = 100
_COLUMN, _ROW, _EDGE, _SIZE = 8.4, 27, 32, 14
_WIDTH = COLUMNS * _COLUMN + 2 * _EDGE

INK = {  # ink and paper of each kind, as in the page's light colours
    "accepted": ("#14532d", "#e2f3e6"),
    "rejected": ("#9f1728", "#fdebed"),
    "untested": ("#5b6472", "none"),
    "correction": ("#7a3b00", "#ffefd0"),
    "bonus": ("#1e3fa8", "#e2ebff"),
    "plain": ("#1d2430", "none"),
}
_STYLE = {
    "rejected": 'text-decoration="line-through"',
    "untested": 'font-style="italic"',
    "correction": 'font-weight="700"',
    "bonus": 'font-weight="600"',
}
_SIGN = {"correction": "•", "bonus": "+"}
_MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class _Placed:
    """A piece of a token in its row and column."""

    row: int
    column: int
    text: str
    kind: str


def picture(trace: Trace) -> str:
    """The SVG file."""
    placed = list(_place(trace))
    rows = max((piece.row for piece in placed), default=0) + 1
    top = 116
    legend_top = top + rows * _ROW + 24
    height = legend_top + 22 * len(LEGEND) + 24
    heading, facts = _heading(trace)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:.0f}" height="{height}" '
        f'viewBox="0 0 {_WIDTH:.0f} {height}" font-family="ui-monospace, Menlo, Consolas, monospace" '
        f'font-size="{_SIZE}">',
        f"<title>{_text(heading)}</title><desc>{_text(facts)}</desc>",
        f'<rect width="{_WIDTH:.0f}" height="{height}" rx="12" fill="#ffffff"/>',
        f'<text x="{_EDGE}" y="42" font-size="18" font-weight="700" fill="#1d2430">{_text(heading)}</text>',
        f'<text x="{_EDGE}" y="66" fill="#525b6b">{_text(facts)}</text>',
        f'<text x="{_EDGE}" y="90" fill="#525b6b">{_text(_clip("Prompt: " + trace.prompt))}</text>',
    ]
    parts += [_draw(piece, top) for piece in placed]
    for at, (kind, meaning) in enumerate(LEGEND):
        y = legend_top + 22 * at
        parts.append(_draw(_Placed(0, 0, _SIGN.get(kind, "") + kind, kind), y))
        parts.append(f'<text x="{_EDGE + 13 * _COLUMN:.1f}" y="{y + 18}" fill="#525b6b">{meaning}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _heading(trace: Trace) -> tuple[str, str]:
    stats = trace.stats
    figures = [drafting_in_words(trace.settings)]
    if stats is not None:
        alpha = stats.acceptance_rate
        figures += [
            f"{number(stats.tokens_per_second)} tokens/s",
            f"acceptance {number(None if alpha is None else 100 * alpha, 0, ' %')}",
            f"{number(stats.block_efficiency, 2)} tokens per round",
        ]
    if device := trace.pair.get("device"):
        figures.append(str(device))
    return _clip(str(trace.pair.get("title") or "An answer"), 70), _clip(" · ".join(figures))


def _place(trace: Trace) -> Iterator[_Placed]:
    """Every token in rows of COLUMNS, a gap after each round."""
    row = column = 0
    for rnd in trace.rounds:
        for token in rnd.tokens:
            for piece, ends_line in _pieces(token):
                if column and not ends_line and column + _columns(piece) > COLUMNS:
                    row, column = row + 1, 0
                while piece:
                    fits = _fitting(piece, COLUMNS - column)
                    yield _Placed(row, column, fits, token.kind)
                    column += _columns(fits)
                    piece = piece[len(fits) :]
                    if piece:
                        row, column = row + 1, 0
                if ends_line:
                    row, column = row + 1, 0
        column += 1 if column else 0


def _pieces(token: Token) -> Iterator[tuple[str, bool]]:
    """The token's text with what cannot be seen made visible, cut after the line ends that were emitted."""
    text = "".join(map(_visible, _NOT_XML.sub("\ufffd", token.text))) or "∅"
    word = text.lstrip(" ")
    text = text[: len(text) - len(word)] + _SIGN.get(token.kind, "") + word
    if token.kind in ("rejected", "untested"):
        yield text, False
        return
    *lines, last = text.split("↵") if "\n" in token.text else [text]
    for line in lines:
        yield line + "↵", True
    if last:
        yield last, False


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    category = unicodedata.category(char)
    return "·" if category in ("Cc", "Cf", "Zl", "Zp") else char


def _columns(text: str) -> int:
    """How many columns of a fixed-width font the text takes."""
    wide = {"W": 2, "F": 2}
    return sum(
        0 if unicodedata.combining(char) else wide.get(unicodedata.east_asian_width(char), 1) for char in text
    )


def _fitting(text: str, room: int) -> str:
    """The longest beginning that fits; at least one character, so that there is an end."""
    taken = 0
    for at, char in enumerate(text):
        taken += _columns(char)
        if taken > room and at:
            return text[:at]
    return text


def _draw(piece: _Placed, top: float) -> str:
    word = piece.text.lstrip(" ")
    indent = _columns(piece.text) - _columns(word)
    if not word:
        word, indent = "␣" * len(piece.text), 0
    ink, paper = INK[piece.kind]
    x = _EDGE + (piece.column + indent) * _COLUMN
    y = top + piece.row * _ROW
    width = max(_columns(word), 1) * _COLUMN
    drawn = ""
    if paper != "none":
        drawn += f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="22" rx="3" fill="{paper}"/>'
    if piece.kind in ("accepted", "untested"):
        dashes = ' stroke-dasharray="2 2"' if piece.kind == "untested" else ""
        drawn += (
            f'<line x1="{x:.1f}" x2="{x + width:.1f}" y1="{y + 23}" y2="{y + 23}" stroke="{ink}" '
            f'stroke-width="1.5"{dashes}/>'
        )
    style = _STYLE.get(piece.kind, "")
    return drawn + (
        f'<text x="{x:.1f}" y="{y + 18}" textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs" '
        f'fill="{ink}" xml:space="preserve" {style}>{_text(word)}</text>'
    )


def _clip(text: str, most: int = COLUMNS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text))
