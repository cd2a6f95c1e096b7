"""A line for what only one may do at a time, in which all know their place. Knows not what it is for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class WaitingLine:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: list[object] = []

    def __len__(self) -> int:
        return len(self._line)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place at the end of the line, given up when the block is left."""
        mine = object()
        with self._changed:
            self._line.append(mine)
        try:
            yield Place(self._changed, self._line, mine)
        finally:
            with self._changed:
                self._line.remove(mine)
                self._changed.notify_all()


class Place:
    def __init__(self, changed: threading.Condition, line: list[object], mine: object) -> None:
        self._changed = changed
        self._line = line
        self._mine = mine

    @property
    def ahead(self) -> int:
        """How many come first; 0 when it is one's turn."""
        return self._line.index(self._mine)

    def wait(self, timeout_s: float) -> None:
        """Until somebody has left the line, or `timeout_s` is over."""
        with self._changed:
            if self.ahead:
                self._changed.wait(timeout_s)
