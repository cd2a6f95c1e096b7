"""Text that may be the beginning of a literal, of which the rest has not come."""

from __future__ import annotations


def overlap(text: str, literal: str) -> int:
    """Return the length of the longest end of `text` that is a beginning of `literal`, but not all of it."""
    longest = min(len(literal) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if literal.startswith(text[-n:])), 0)
