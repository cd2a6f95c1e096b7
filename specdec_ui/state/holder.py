"""The one loaded pair, shared by every visitor: borrowed for an answer, replaced without breaking one off.

Knows the engine's public names; nothing of Gradio or of conversations.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import specdec_core as sd

from .queue import WaitingLine

Progress = Callable[[str, float | None], None]
Load = Callable[[Any, Progress], tuple[Any, Any]]
"""From a preset to an engine and the gate's report; what `Progress` raises ends it, with nothing loaded."""

_import_lock = threading.Lock()


def import_engine() -> Any:
    """Engine, imported when first needed: it brings torch and transformers along.

    One thread at a time, since transformers' lazy imports fail where two begin them together.
    """
    with _import_lock:
        _leave_a_core()
        return sd.Engine


@cache
def _leave_a_core() -> None:
    """To the server, and to a browser on the same machine: where both cores of two compute, each small
    product waits for the core that is busy otherwise, and answers in the page take up to twice as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def has_gpu() -> bool:
    """Whether pairs would be loaded onto a GPU here. Takes seconds where torch is not imported yet."""
    import_engine()
    import torch

    return torch.cuda.is_available()


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


@dataclass(frozen=True)
class _Request:
    """A load under way: of which preset, for whom, and whether it was called off."""

    name: str
    asked_by: object
    cancel: threading.Event = field(default_factory=threading.Event)


class EngineHolder:
    """Holds the pair that everybody talks to."""

    def __init__(self, load: Load = load_checked) -> None:
        self.measuring = WaitingLine()
        """Of those who measure: two at a time would slow each other down."""
        self._load = load
        self._lock = threading.Lock()
        self._loading: _Request | None = None
        self._current: Loaded | None = None
        self._count = 0

    @property
    def current(self) -> Loaded | None:
        return self._current

    @property
    def loading(self) -> str | None:
        """The preset on its way, if any."""
        request = self._loading
        return None if request is None else request.name

    def require(self) -> Loaded:
        """The current pair. Raises NothingLoadedError."""
        if self._current is None:
            raise NothingLoadedError("No model is loaded yet. Press Load at the top, then send again.")
        return self._current

    def load(self, preset: Any, on_progress: Progress, asked_by: object = None) -> Loaded:
        """Loads a preset beside the current pair, then takes its place.

        Raises what the engine raises, LoadCancelledError once `asked_by` calls it off, both with the current
        pair still serving, and BusyError while another load is under way. The pair before is unloaded when
        its last answer has ended.
        """
        with self._lock:
            if self._loading is not None:
                raise BusyError(f"“{self._loading.name}” is being loaded just now. Try again afterwards.")
            request = self._loading = _Request(preset.name, asked_by)

        def watched(message: str, fraction: float | None) -> None:
            if request.cancel.is_set():
                raise sd.LoadCancelledError(f"Loading {preset.name} was cancelled.")
            on_progress(message, fraction)

        try:
            engine, report = self._load(preset, watched)
            with self._lock:
                self._count += 1
                before, self._current = self._current, Loaded(engine, preset, self._count, report)
                loaded = self._current
        finally:
            self._loading = None
        if before is not None:
            self._retire(before)
        return loaded

    def cancel(self, asked_by: object) -> bool:
        """Calls off the load that `asked_by` asked for; False where there is none of theirs."""
        request = self._loading
        if request is None or request.asked_by is not asked_by:
            return False
        request.cancel.set()
        return True

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
