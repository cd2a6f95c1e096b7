"""The loaded pair, shared by all visitors: loading, borrowing for an answer, replacement.

Knows the engine's public names; nothing of Gradio or of conversations.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

import specdec_core as sd

from ..parts.context_room import fitted
from .queue import TurnQueue

Load = Callable[[sd.Preset, sd.Progress, threading.Event], sd.ChatEngine]
"""Loader of a preset's engine. Setting the event ends it with LoadCancelledError, and nothing is loaded."""

_import_lock = threading.Lock()


def import_engine() -> type[sd.Engine]:
    """Import the engine, and with it torch and transformers; return its class.

    One thread at a time: transformers' lazy imports are not thread-safe.
    """
    with _import_lock:
        _settle_threads()
        return sd.Engine


@cache
def _settle_threads() -> None:
    """Limit computation to all cores but one, which is left to the server and a browser on the same machine.

    On two cores, a product on both waits for whichever is busy: answers on the page take up to twice as long.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() - 1))


def has_gpu() -> bool:
    """Return True where pairs are loaded onto a GPU. Takes seconds if torch is not imported yet."""
    import_engine()
    import torch

    return torch.cuda.is_available()


class NothingLoadedError(sd.SpecDecError):
    """A question before the first load."""


class BusyError(sd.SpecDecError):
    """A request that has to wait for another one in progress."""


class LockedError(sd.SpecDecError):
    """A load on a page whose operator has fixed the pair."""


def load_engine(preset: sd.Preset, on_progress: sd.Progress, cancel: threading.Event) -> sd.ChatEngine:
    """Load a pair into this process. Raises what Engine.load raises."""
    return import_engine().load(preset, on_progress=on_progress, cancel=cancel)


@dataclass(eq=False)
class Loaded:
    """A loaded pair. `number` is unique among the pairs of this process; `answers` are in progress; a
    `retired` pair has been replaced and is unloaded after its last answer.
    """

    engine: sd.ChatEngine
    preset: sd.Preset
    number: int
    answers: int = 0
    retired: bool = False

    @property
    def default_settings(self) -> sd.Settings:
        """Settings of answers that are asked for without any, within the context."""
        return fitted(self.engine.default_settings, self.engine.info.context_length)


@dataclass(frozen=True)
class _LoadInProgress:
    """A load: the preset's name, the `owner` that may cancel it, the event that does, and that of its end."""

    name: str
    owner: object
    cancel: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)


class EngineHolder:
    """Owner of the loaded pair. Safe to use from many threads."""

    def __init__(self, load: Load = load_engine) -> None:
        self.measuring = TurnQueue()
        """Queue of the comparisons: two at a time would slow each other down."""
        self._load = load
        self._lock = threading.Lock()
        self._loading: _LoadInProgress | None = None
        self._current: Loaded | None = None
        self._count = 0

    @property
    def current(self) -> Loaded | None:
        """The loaded pair, None before the first load."""
        return self._current

    @property
    def loading(self) -> str | None:
        """Name of the preset that is being loaded, None if there is none."""
        load = self._loading
        return None if load is None else load.name

    def require(self) -> Loaded:
        """Return the current pair. Raises NothingLoadedError."""
        if self._current is None:
            raise NothingLoadedError("No model is loaded yet. Press Load at the top, then send again.")
        return self._current

    def load(self, preset: sd.Preset, on_progress: sd.Progress, owner: object = None) -> Loaded:
        """Load a preset beside the current pair, then replace that one. Return the new pair.

        The replaced pair is unloaded after its last answer. Raises what the engine raises, LoadCancelledError
        after `cancel(owner)`, and BusyError during another load; the current pair then stays loaded.
        """
        with self._lock:
            if self._loading is not None:
                raise BusyError(f"“{self._loading.name}” is being loaded just now. Try again afterwards.")
            load = self._loading = _LoadInProgress(preset.name, owner)
        try:
            engine = self._load(preset, on_progress, load.cancel)
            with self._lock:
                self._count += 1
                loaded = Loaded(engine, preset, self._count)
                replaced, self._current = self._current, loaded
        finally:
            self._loading = None
            load.ended.set()
        if replaced is not None:
            self._retire(replaced)
        return loaded

    def cancel(self, owner: object) -> bool:
        """Cancel the load of `owner`. Return False if there is none."""
        load = self._loading
        if load is None or load.owner is not owner:
            return False
        load.cancel.set()
        return True

    def wait_for_load(self, timeout_s: float) -> bool:
        """Wait for the load in progress, `timeout_s` at most. Return True if there is none any more."""
        load = self._loading
        return load is None or load.ended.wait(timeout_s)

    @contextmanager
    def borrow(self) -> Iterator[Loaded]:
        """Keep the current pair loaded for the length of one answer. Raises NothingLoadedError."""
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
