"""Notices that forwards take longer than they did, for good: another process keeps a core busy."""

from __future__ import annotations

_SLOW = 2.0
"""A forward takes so many times as long as the fastest of its kind."""
_PERSISTS = 100
"""So many more slow forwards than others."""


class Pace:
    """The fastest forward by number of rows, and how many more were slow lately than were not."""

    def __init__(self) -> None:
        self._fastest: dict[int, float] = {}
        self._slow = 0

    def note(self, rows: int, seconds: float) -> None:
        """Count a forward over `rows`."""
        fastest = self._fastest.get(rows, seconds)
        if seconds <= fastest:
            self._fastest[rows] = seconds
        if seconds > _SLOW * fastest:
            self._slow = min(_PERSISTS, self._slow + 1)
        elif self._slow:
            self._slow -= 1

    @property
    def slow(self) -> bool:
        """True if the last hundred forwards or more were slow for the most part."""
        return self._slow >= _PERSISTS
