"""Admission of answers: one at a time per session, none after closing, and a bound on the sessions' caches.

Knows nothing of models; a session is anything with `size_bytes`, `reset` and `close`.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from .errors import LoadError, SpecDecError

UNLOADED = "This pair was unloaded. Load one again."


class CachedSession(Protocol):
    """A conversation whose caches can be given up between two answers."""

    @property
    def size_bytes(self) -> int:
        """Memory of the caches."""
        ...

    def reset(self) -> None:
        """Free the caches; the session stays usable."""
        ...

    def close(self) -> None:
        """Free the caches and the weights' reference; the session cannot be used again."""
        ...


class Admission:
    """Counts answers in progress and bounds the memory of idle sessions: the longest idle is reset first."""

    def __init__(self, max_cache_bytes: int) -> None:
        self.max_cache_bytes = max_cache_bytes
        self.closed = False
        self._changed = threading.Condition()
        self._busy: set[int] = set()
        self._last_used: weakref.WeakKeyDictionary[CachedSession, float] = weakref.WeakKeyDictionary()

    @property
    def active(self) -> int:
        """Answers in progress."""
        return len(self._busy)

    def register(self, session: CachedSession) -> None:
        """Count this session's caches from now on."""
        with self._changed:
            self._last_used[session] = time.monotonic()

    @contextmanager
    def answering(self, session: CachedSession) -> Iterator[None]:
        """Hold the session for one answer.

        Raises SpecDecError while another answer holds it, LoadError once closed.
        """
        with self._changed:
            if self.closed:
                raise LoadError(UNLOADED)
            if id(session) in self._busy:
                raise SpecDecError("This conversation is still being answered. Stop it, or wait for its end.")
            self._busy.add(id(session))
        try:
            yield
        finally:
            with self._changed:
                self._busy.discard(id(session))
                self._changed.notify_all()
                self._bound_caches(session)

    def close(self) -> None:
        """Refuse new answers from now on."""
        with self._changed:
            self.closed = True

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait for the last answer's end. Returns whether it came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)

    def close_sessions(self) -> None:
        """Close every session that is still referenced."""
        for session in list(self._last_used):
            session.close()

    def reset_idle(self) -> None:
        """Free the caches of all sessions that no answer holds."""
        with self._changed:
            for session in list(self._last_used):
                if id(session) not in self._busy:
                    session.reset()

    def _bound_caches(self, newest: CachedSession) -> None:
        self._last_used[newest] = time.monotonic()
        by_age = sorted(self._last_used.items(), key=lambda item: item[1])
        total_bytes = sum(session.size_bytes for session, _ in by_age)
        for session, _ in by_age:
            if total_bytes <= self.max_cache_bytes or session is newest:
                break
            if id(session) not in self._busy:
                total_bytes -= session.size_bytes
                session.reset()
