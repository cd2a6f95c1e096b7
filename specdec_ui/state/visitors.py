"""Who is on the page: each visitor's conversation and engine session, found by Gradio's session hash.

Knows conversations and the shared pair; nothing of components.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import specdec_core as sd
from specdec_core.trace import Round

from ..parts.trace_files import Trace, trace_of
from .conversation import Conversation
from .holder import BusyError, EngineHolder, Loaded

IDLE_S = 3600.0
"""An open page is heard of every few seconds; who was not heard of for this long is gone."""

KEPT_TRACES = 20
"""Traces of one visitor that can still be saved."""

_BUSY = "An answer is still on its way. Stop it or wait for its end."


class Visitor:
    """One open page, or one client of the API."""

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.traces: dict[int, Trace] = {}
        self._answers = 0
        self.seen_pair = 0
        self.waiting = False
        self.last_seen = time.monotonic()
        self._busy = threading.Lock()
        self._cancel = threading.Event()
        self._pair: Loaded | None = None
        self._session: Any = None
        self._left = False

    def require_idle(self) -> None:
        """Raises BusyError while an answer is on its way."""
        if self._busy.locked():
            raise BusyError(_BUSY)

    def stop(self) -> None:
        """Ends the answer in progress after its current round."""
        self._cancel.set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One thing at a time happens to a conversation. Raises BusyError."""
        if not self._busy.acquire(blocking=False):
            raise BusyError(_BUSY)
        try:
            yield
        finally:
            self._busy.release()
            if self._left:
                self._close_session()

    def ask(
        self, text: str, settings: sd.Settings, holder: EngineHolder, system: str = "", again: bool = False
    ) -> Iterator[Round | None]:
        """Asks the loaded pair; `conversation` grows with each item, of which the first is None: asked.

        `system` is left out where the pair's template takes no system message; `again` asks in place of the
        last question. Raises BusyError, NothingLoadedError and what the engine raises. Closing the iterator
        ends the answer.
        """
        with self.work(holder) as (loaded, cancel):
            self._use(loaded)
            rounds: list[Round] = []
            if not loaded.engine.info.takes_system_message:
                system = ""
            asked = self.conversation.ask(text, loaded.engine, settings, self._session, cancel, system, again)
            with closing(asked) as answer:
                for rnd in answer:
                    if rnd is not None:
                        rounds.append(rnd)
                    if rounds and rounds[-1].finish_reason is not None:
                        self.keep(text, settings, loaded.engine.info, rounds)
                    yield rnd

    def keep(self, prompt: str, settings: sd.Settings, info: Any, rounds: list[Round]) -> None:
        """Keeps the trace of an answer that came to its end; of many, the latest."""
        self._answers += 1
        self.traces[self._answers] = trace_of(prompt, settings, info, rounds)
        if len(self.traces) > KEPT_TRACES:
            del self.traces[min(self.traces)]

    @contextmanager
    def work(self, holder: EngineHolder) -> Iterator[tuple[Loaded, threading.Event]]:
        """The loaded pair, for one thing at a time, and what `stop` sets.

        Raises BusyError and NothingLoadedError.
        """
        with self.turn(), holder.borrow() as loaded:
            self._cancel.clear()
            yield loaded, self._cancel

    def _use(self, loaded: Loaded) -> None:
        """A session with `loaded`; says so where the conversation began with another pair."""
        if self._pair is loaded:
            return
        if self._pair is not None and self.conversation.messages:
            self.conversation.note(f"The pair was replaced: {loaded.engine.info.title} answers from here on.")
        self._close_session()
        self._pair, self._session = loaded, loaded.engine.session()

    def leave(self) -> None:
        """The page was closed: ends the answer in progress and gives up the caches."""
        self._left = True
        self._cancel.set()
        if self._busy.acquire(blocking=False):
            try:
                self._close_session()
            finally:
                self._busy.release()

    def _close_session(self) -> None:
        if self._session is not None:
            self._session.close()
        self._pair = self._session = None


class Visitors:
    """All visitors of this server.

    A page says when it is closed; a program that came once and never says so is forgotten after IDLE_S.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: dict[str, Visitor] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def of(self, session_hash: str | None) -> Visitor:
        """The visitor with that hash, made on the first visit. Without a hash nobody can come back."""
        if session_hash is None:
            return Visitor()
        now = time.monotonic()
        with self._lock:
            if session_hash not in self._visitors:
                forgotten = [key for key, known in self._visitors.items() if now - known.last_seen > IDLE_S]
                gone = [self._visitors.pop(key) for key in forgotten]
                self._visitors[session_hash] = Visitor()
            else:
                gone = []
            visitor = self._visitors[session_hash]
            visitor.last_seen = now
        for old in gone:
            old.leave()
        return visitor

    def leave(self, session_hash: str | None) -> None:
        """The visitor's page was closed."""
        with self._lock:
            visitor = self._visitors.pop(session_hash, None) if session_hash else None
        if visitor is not None:
            visitor.leave()
