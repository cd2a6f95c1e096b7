"""Comparison of forwards with earlier ones: they become slow where another process keeps a core busy."""

from __future__ import annotations

_SLOW = 2.0
"""A forward takes so many times as long as the fastest of its kind."""
_CONTEXT = 256
"""Positions within which contexts count as equally long."""
_PERSISTS = 100
"""So many more slow forwards than others."""


class Pace:
    """The fastest forward of each kind, and the number of slow ones that no other has made up for."""

    def __init__(self) -> None:
        self._fastest: dict[tuple[int, int], float] = {}
        self._slow = 0

    def note(self, rows: int, end: int, seconds: float) -> None:
        """Count a forward over `rows`, the last at position `end`. Others of the same kind have as many rows
        and about as long a context.
        """
        kind = rows, end // _CONTEXT
        fastest = self._fastest.get(kind, seconds)
        if seconds <= fastest:
            self._fastest[kind] = seconds
        if seconds > _SLOW * fastest:
            self._slow = min(_PERSISTS, self._slow + 1)
        elif self._slow:
            self._slow -= 1

    @property
    def slow(self) -> bool:
        """True once slow forwards outnumber the others by a hundred."""
        return self._slow >= _PERSISTS
