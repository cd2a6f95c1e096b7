"""A lock that serves waiters in the order of arrival (FIFO), so that no answer starves another."""

from __future__ import annotations

import threading
from collections import deque


class FairLock:
    """A non-reentrant FIFO lock, used as a context manager. Each waiter has an `event_type` of its own."""

    def __init__(self, event_type: type[threading.Event] = threading.Event) -> None:
        self._event_type = event_type
        self._guard = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._locked = False

    def __enter__(self) -> None:
        with self._guard:
            if not self._locked:
                self._locked = True
                return
            turn = self._event_type()
            self._waiting.append(turn)
        try:
            turn.wait()
        except BaseException:
            with self._guard:
                if turn.is_set():
                    self._pass_on()
                else:
                    self._waiting.remove(turn)
            raise

    def __exit__(self, *exception: object) -> None:
        with self._guard:
            self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._locked = False
