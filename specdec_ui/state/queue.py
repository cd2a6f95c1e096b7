"""First-in-first-out queue for work that runs one at a time, with visible positions. Knows no work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TurnQueue:
    """Queue of tickets; the first one has its turn. Its length counts that one too."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._tickets: list[object] = []

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def enter(self) -> Iterator[Ticket]:
        """Join the end of the queue; leave it at the end of the block."""
        identity = object()
        with self._changed:
            self._tickets.append(identity)
        try:
            yield Ticket(self._changed, self._tickets, identity)
        finally:
            with self._changed:
                self._tickets.remove(identity)
                self._changed.notify_all()


class Ticket:
    """A position in the queue."""

    def __init__(self, changed: threading.Condition, tickets: list[object], identity: object) -> None:
        self._changed = changed
        self._tickets = tickets
        self._identity = identity

    @property
    def ahead(self) -> int:
        """Number of tickets before this one; 0 when it has its turn."""
        return self._tickets.index(self._identity)

    def wait(self, timeout_s: float) -> None:
        """Wait for a change of the queue, `timeout_s` at most; return at once if this ticket has its turn."""
        with self._changed:
            if self.ahead:
                self._changed.wait(timeout_s)
