"""The one loaded pair, shared by every visitor: borrowed for an answer, replaced without breaking one off.

Knows the engine's public names; nothing of Gradio or of conversations.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import specdec_core as sd

Progress = Callable[[str, float | None], None]


_import_lock = threading.Lock()


def import_engine() -> Any:
    """Engine, imported when first needed: it brings torch and transformers along.

    One thread at a time, since transformers' lazy imports fail where two begin them together.
    """
    with _import_lock:
        return sd.Engine


class NothingLoadedError(sd.SpecDecError):
    """An answer was asked for before a pair was loaded."""


class BusyError(sd.SpecDecError):
    """What was asked for has to wait for something that is under way."""


class LockedError(sd.SpecDecError):
    """The operator does not let visitors change the pair."""


def load_checked(preset: Any, on_progress: Progress) -> tuple[Any, Any]:
    """The engine, and the gate's report to show beside it (None where there is no drafter to check).

    Raises what the gate and the engine raise.
    """
    engine = import_engine().load(preset, on_progress=on_progress)
    return engine, engine.report


@dataclass(eq=False)
class Loaded:
    """A loaded pair. `number` tells it from those before and after it."""

    engine: Any
    preset: Any
    number: int
    report: Any = None
    answers: int = 0
    retired: bool = False


class EngineHolder:
    """Holds the pair that everybody talks to."""

    def __init__(self, load: Callable[..., tuple[Any, Any]] = load_checked) -> None:
        self.measuring = threading.Lock()
        """Held by whoever measures: two at a time would slow each other down."""
        self._load = load
        self._lock = threading.Lock()
        self._loading: str | None = None
        self._current: Loaded | None = None
        self._count = 0

    @property
    def current(self) -> Loaded | None:
        return self._current

    @property
    def loading(self) -> str | None:
        """The preset on its way, if any."""
        return self._loading

    def require(self) -> Loaded:
        """The current pair. Raises NothingLoadedError."""
        if self._current is None:
            raise NothingLoadedError("No model is loaded yet. Press Load at the top, then send again.")
        return self._current

    def load(self, preset: Any, on_progress: Progress) -> Loaded:
        """Loads a preset beside the current pair, then takes its place.

        Raises what the engine raises, with the current pair still serving, and BusyError while another load
        is under way. The pair before is unloaded when its last answer has ended.
        """
        with self._lock:
            if self._loading is not None:
                raise BusyError(f"“{self._loading}” is being loaded just now. Try again when that is done.")
            self._loading = preset.name
        try:
            engine, report = self._load(preset, on_progress)
            with self._lock:
                self._count += 1
                before, self._current = self._current, Loaded(engine, preset, self._count, report)
                loaded = self._current
        finally:
            self._loading = None
        if before is not None:
            self._retire(before)
        return loaded

    @contextmanager
    def borrow(self) -> Iterator[Loaded]:
        """The current pair for the length of one answer. Raises NothingLoadedError."""
        with self._lock:
            loaded = self.require()
            loaded.answers += 1
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.answers -= 1
                unload = loaded.retired and loaded.answers == 0
            if unload:
                loaded.engine.unload()

    def _retire(self, loaded: Loaded) -> None:
        with self._lock:
            loaded.retired = True
            unload = loaded.answers == 0
        if unload:
            loaded.engine.unload()
