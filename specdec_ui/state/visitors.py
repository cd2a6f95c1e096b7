"""Visitors of the page: conversation, engine session and traces of each, by Gradio's session hash.

Knows conversations and the shared pair; nothing of components.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager

import specdec_core as sd

from ..parts.trace_files import Trace, trace_of
from .conversation import Conversation, Step
from .holder import BusyError, EngineHolder, Loaded

IDLE_S = 3600.0
"""Time without a request after which a visitor is forgotten; an open page sends one every few seconds."""

KEPT_TRACES = 20
"""Number of a visitor's latest traces that can be saved."""

_BUSY = "An answer is still on its way. Stop it or wait for its end."


class Visitor:
    """An open page, or a client of the API.

    `displayed_pair` is the number of the pair in the page's status; `awaits_load` is set while the status is
    that of another visitor's load; `checked_fields` are those of the Pair check tab at its latest check, None
    after a change.
    """

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.traces: dict[int, Trace] = {}
        self._answers = 0
        self.displayed_pair = 0
        self.awaits_load = False
        self.checked_fields: object = None
        self.last_seen = time.monotonic()
        self._busy = threading.Lock()
        self._cancel = threading.Event()
        self._pair: Loaded | None = None
        self._session: sd.ChatSession | None = None
        self._left = False

    @property
    def session(self) -> sd.ChatSession | None:
        """Session of the conversation with the pair that answered last."""
        return self._session

    def require_idle(self) -> None:
        """Raise BusyError during an answer."""
        if self._busy.locked():
            raise BusyError(_BUSY)

    def stop(self) -> None:
        """End the answer in progress after its current round."""
        self._cancel.set()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the conversation for one change. Raises BusyError during another one."""
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
    ) -> Generator[Step]:
        """Yield the steps of the loaded pair's answer; `conversation` has grown by each before it is yielded.

        `system` is left out if the pair's template takes no system message; `again` replaces the last
        question and its answer. Closing the generator ends the answer. Raises BusyError, NothingLoadedError
        and what the engine raises.
        """
        with self.work(holder) as (loaded, cancel):
            self._use(loaded)
            engine = loaded.engine
            rounds: list[sd.Round] = []
            if not engine.info.takes_system_message:
                system = ""
            steps = self.conversation.ask(text, engine, settings, self._session, cancel, system, again)
            with closing(steps):
                for step in steps:
                    if isinstance(step, sd.Round):
                        rounds.append(step)
                        if step.finish_reason is not None:
                            self.keep(text, settings, engine.info, rounds)
                    yield step

    def keep(self, prompt: str, settings: sd.Settings, info: sd.EngineInfo, rounds: list[sd.Round]) -> None:
        """Keep the trace of a finished answer; of many, the latest KEPT_TRACES."""
        self._answers += 1
        self.traces[self._answers] = trace_of(prompt, settings, info, rounds)
        if len(self.traces) > KEPT_TRACES:
            del self.traces[min(self.traces)]

    @contextmanager
    def work(self, holder: EngineHolder) -> Iterator[tuple[Loaded, threading.Event]]:
        """Hold the conversation and the loaded pair; yield the pair, and the event that `stop` sets.

        Raises BusyError and NothingLoadedError.
        """
        with self.turn(), holder.borrow() as loaded:
            self._cancel.clear()
            yield loaded, self._cancel

    def _use(self, loaded: Loaded) -> None:
        """Open a session with `loaded`; note the change if the conversation began with another pair."""
        if self._pair is loaded:
            return
        if self._pair is not None and self.conversation.messages:
            self.conversation.note(f"The pair was replaced: {loaded.engine.info.title} answers from here on.")
        self._close_session()
        self._pair, self._session = loaded, loaded.engine.session()

    def leave(self) -> None:
        """End the answer in progress and free the caches, after the page was closed."""
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

    A page reports that it was closed; a client of the API does not, and is forgotten after IDLE_S.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: dict[str, Visitor] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def of(self, session_hash: str | None) -> Visitor:
        """Return the visitor with that hash, created on its first request; a new one each time for None."""
        if session_hash is None:
            return Visitor()
        now = time.monotonic()
        with self._lock:
            if session_hash not in self._visitors:
                idle = [key for key, known in self._visitors.items() if now - known.last_seen > IDLE_S]
                forgotten = [self._visitors.pop(key) for key in idle]
                self._visitors[session_hash] = Visitor()
            else:
                forgotten = []
            visitor = self._visitors[session_hash]
            visitor.last_seen = now
        for former in forgotten:
            former.leave()
        return visitor

    def leave(self, session_hash: str | None) -> None:
        """Remove the visitor, after the page was closed."""
        with self._lock:
            visitor = self._visitors.pop(session_hash, None) if session_hash else None
        if visitor is not None:
            visitor.leave()
