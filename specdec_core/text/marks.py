"""Placeholders in messages: for answers that keep their ids, and for control tokens that a person spells."""

from __future__ import annotations

import secrets
from itertools import count

_FIRST_LETTER = 0xA000  # of the Yi script, in which a case and escapes are unknown


class Marks:
    """Placeholders that occur in no message: random numbers, all of one length."""

    def __init__(self) -> None:
        # Digits stay the same in a template that changes upper and lower case, or escapes text.
        nonce = f"{secrets.randbelow(10**18):018}"
        self._names = (f"{nonce}{n:06}" for n in count())
        self.literals: dict[str, str] = {}

    def __next__(self) -> str:
        return next(self._names)

    def standing_for(self, literal: str) -> str:
        """Return the mark of a literal, the same one each time."""
        known = next((mark for mark, text in self.literals.items() if text == literal), None)
        if known is None:
            known = next(self)
            self.literals[known] = literal
        return known

    def restore(self, text: str) -> str:
        """Replace the marks in a text by their literals."""
        for mark, literal in self.literals.items():
            text = text.replace(mark, literal)
        return text


def unused_character(text: str) -> str:
    """Return a letter that the text does not have, without upper and lower case."""
    used = set(text)
    return next(letter for letter in map(chr, count(_FIRST_LETTER)) if letter not in used)
