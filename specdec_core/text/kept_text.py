"""Search of a message in rendered text. A template may change its case and white space, and may escape it."""

from __future__ import annotations

import html
import re

_ESCAPES = re.compile(r"""(?:\\(?:u[0-9a-f]{4}|x[0-9a-f]{2}|[\\"'bfnrt]))+""", re.IGNORECASE)
"""Runs of the escapes of JSON and of Python's repr."""
_SWITCH = re.compile(r"/\w+")
"""A word such as /no_think, which templates read and take out."""


def squeezed(text: str) -> str:
    """Return the text without white space, which templates may trim."""
    return "".join(text.split())


def folded(text: str) -> str:
    """Return the text without white space and differences of case."""
    # Some letters fold only after they are upper case: the dotless i is the upper-case I of the ASCII i.
    return squeezed(text).upper().casefold()


def missing_word(message: str, text: str) -> str | None:
    """Return the first word of a message that the text lacks after those before it; None if it has all."""
    words = [word for word in message.split() if not _SWITCH.fullmatch(word)]
    raw, unescaped = text, html.unescape(text)
    forms = (raw, unescaped, _without_escapes(raw), _without_escapes(unescaped))
    found = max(_leading_words(words, folded(form)) for form in forms)
    return words[found] if found < len(words) else None


def text_in_place(text: str, marked: str, mark: str) -> str | None:
    """Return what the text has where another rendering has a mark, None if the mark is nowhere.

    It is the whole text if the two renderings differ elsewhere too.
    """
    if mark not in marked:
        return text if mark in _without_escapes(marked) else None
    before, after = marked.partition(mark)[0], marked.rpartition(mark)[2]
    end = len(text) - len(after)
    same = len(before) <= end and text.startswith(before) and text.endswith(after)
    return text[len(before) : end] if same else text


def _leading_words(words: list[str], text: str) -> int:
    """The count of words that a folded text has, one after the other, before the first that it lacks."""
    at = 0
    for count, word in enumerate(map(folded, words)):
        start = text.find(word, at)
        if start < 0:
            return count
        at = start + len(word)
    return len(words)


def _without_escapes(text: str) -> str:
    return _ESCAPES.sub(lambda run: _decoded(run.group()), text)


def _decoded(escapes: str) -> str:
    """Decoded escapes; two that spell a surrogate pair are one character."""
    units = escapes.lower().encode().decode("unicode_escape")
    return units.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
