"""Checks of text that people typed. Knows nothing of tokenizers."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def find_surrogate(text: str) -> int | None:
    """Return the index of the first lone surrogate, half of a character that no encoding takes; None if there
    is none.
    """
    match = _SURROGATE.search(text)
    return None if match is None else match.start()
