"""A trace as a picture to share: one self-contained SVG file with the marks of the token view.

Set in columns of a fixed width, so that it looks the same in every viewer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import specdec_core as sd

from ..parts.figures import number
from ..parts.trace_files import Trace, drafting_in_words
from ..parts.trace_words import TOKEN_KINDS

COLUMNS = 100
"""Columns in a row of text."""
_COLUMN, _ROW, _EDGE, _SIZE = 8.4, 27, 32, 14
_WIDTH = round(COLUMNS * _COLUMN + 2 * _EDGE)
_TOP = 116
_LEGEND_ROW = 22

INK = {  # ink and paper of each kind, as in the page's light colours
    "accepted": ("#14532d", "#e2f3e6"),
    "rejected": ("#9f1728", "#fdebed"),
    "untested": ("#5b6472", "none"),
    "correction": ("#7a3b00", "#ffefd0"),
    "bonus": ("#1e3fa8", "#e2ebff"),
    "plain": ("#1d2430", "none"),
}
_STYLE = {
    "rejected": {"text_decoration": "line-through"},
    "untested": {"font_style": "italic"},
    "correction": {"font_weight": "700"},
    "bonus": {"font_weight": "600"},
}
_SIGN = {"correction": "•", "bonus": "+"}
_MARKS = {"\n": "↵", "\r": "␍", "\t": "⇥"}
_SOFT = "#525b6b"


@dataclass(frozen=True)
class _Piece:
    """A token, or a part of one that fits into its row, with its row and column."""

    row: int
    column: int
    text: str
    kind: str


def picture(trace: Trace) -> str:
    """Return the picture as the text of an SVG file."""
    pieces = list(_layout(trace))
    rows = max((piece.row for piece in pieces), default=0) + 1
    legend_top = _TOP + rows * _ROW + 24
    height = legend_top + _LEGEND_ROW * len(TOKEN_KINDS) + 24
    heading, facts = _heading(trace)
    prompt = _clip("Prompt: " + trace.prompt)
    elements = [
        sd.svg_element("title", heading),
        sd.svg_element("desc", facts),
        sd.svg_element("rect", width=_WIDTH, height=height, rx=12, fill="#ffffff"),
        sd.svg_element("text", heading, x=_EDGE, y=42, font_size=18, font_weight=700, fill="#1d2430"),
        sd.svg_element("text", facts, x=_EDGE, y=66, fill=_SOFT),
        sd.svg_element("text", prompt, x=_EDGE, y=90, fill=_SOFT),
    ]
    for piece in pieces:
        elements += _draw(piece, _TOP)
    elements += _legend(legend_top)
    drawing = sd.svg_element(
        "svg",
        *elements,
        xmlns="http://www.w3.org/2000/svg",
        width=_WIDTH,
        height=height,
        viewBox=f"0 0 {_WIDTH} {height}",
        font_family="ui-monospace, Menlo, Consolas, monospace",
        font_size=_SIZE,
    )
    return drawing + "\n"


def _legend(top: int) -> list[sd.SvgElement]:
    elements = []
    for at, (kind, words) in enumerate(TOKEN_KINDS.items()):
        y = top + _LEGEND_ROW * at
        elements += _draw(_Piece(0, 0, _SIGN.get(kind, "") + kind, kind), y)
        elements.append(sd.svg_element("text", words.meaning, x=_EDGE + 13 * _COLUMN, y=y + 18, fill=_SOFT))
    return elements


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


def _layout(trace: Trace) -> Iterator[_Piece]:
    """Lay every token out in rows of COLUMNS, with a gap after each round."""
    row = column = 0
    end_id = trace.end_id
    for rnd in trace.rounds:
        for token in rnd.tokens:
            for piece, ends_line in _pieces(token, "end" if token.id == end_id else "∅"):
                if column and not ends_line and column + _columns(piece) > COLUMNS:
                    row, column = row + 1, 0
                while piece:
                    fits = _fitting(piece, COLUMNS - column)
                    yield _Piece(row, column, fits, token.kind)
                    column += _columns(fits)
                    piece = piece[len(fits) :]
                    if piece:
                        row, column = row + 1, 0
                if ends_line:
                    row, column = row + 1, 0
        column += 1 if column else 0


def _pieces(token: sd.Token, textless: str) -> Iterator[tuple[str, bool]]:
    """Yield the token's text, or `textless` in its place, as pieces (text, ends a line), cut after the line
    ends that were emitted, with invisible characters made visible.
    """
    text = "".join(map(_visible, token.text)) or textless
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
    if char < " ":  # XML allows no other control characters
        return "\ufffd"
    category = unicodedata.category(char)
    return "·" if category in ("Cc", "Cf", "Zl", "Zp") else char


def _columns(text: str) -> int:
    """Return the width of the text in columns of a fixed-width font."""
    wide = {"W": 2, "F": 2}
    return sum(
        0 if unicodedata.combining(char) else wide.get(unicodedata.east_asian_width(char), 1) for char in text
    )


def _fitting(text: str, room: int) -> str:
    """Return the longest prefix that fits, of at least one character so that the layout advances."""
    taken = 0
    for at, char in enumerate(text):
        taken += _columns(char)
        if taken > room and at:
            return text[:at]
    return text


def _draw(piece: _Piece, top: int) -> list[sd.SvgElement]:
    word = piece.text.lstrip(" ")
    indent = _columns(piece.text) - _columns(word)
    if not word:
        word, indent = "␣" * len(piece.text), 0
    ink, paper = INK[piece.kind]
    x = _EDGE + (piece.column + indent) * _COLUMN
    y = top + piece.row * _ROW
    width = max(_columns(word), 1) * _COLUMN
    elements = []
    if paper != "none":
        elements.append(sd.svg_element("rect", x=x, y=y + 2, width=width, height=22, rx=3, fill=paper))
    if piece.kind in ("accepted", "untested"):
        dashes = {"stroke_dasharray": "2 2"} if piece.kind == "untested" else {}
        elements.append(
            sd.svg_element(
                "line", x1=x, x2=x + width, y1=y + 23, y2=y + 23, stroke=ink, stroke_width=1.5, **dashes
            )
        )
    elements.append(
        sd.svg_element(
            "text",
            word,
            x=x,
            y=y + 18,
            textLength=width,
            lengthAdjust="spacingAndGlyphs",
            fill=ink,
            xml_space="preserve",
            **_STYLE.get(piece.kind, {}),
        )
    )
    return elements


def _clip(text: str, most: int = COLUMNS) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
