"""What the top of the page does: load a preset behind the gate, and say what is loaded.

Plain functions from input to frames; knows the shared pair, nothing of components.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

import specdec_core as sd

from ..parts.frames import LoadFrame
from ..parts.settings_panel import panel_values
from ..state.holder import EngineHolder, Loaded, LockedError
from ..state.presets import Presets
from ..state.visitors import Visitor
from . import status

log = logging.getLogger(__name__)


def load(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool = False
) -> Iterator[LoadFrame]:
    """Loads a preset, with progress; a refused one leaves the loaded pair as it is."""
    try:
        for step in load_steps(visitor, holder, presets, name, locked):
            if isinstance(step, Loaded):
                yield shown(step)
            else:
                message, fraction = step
                yield LoadFrame(status=status.loading(name, message, fraction), loading=True, own=True)
    except sd.LoadCancelledError:
        yield _cancelled(name, holder)
    except sd.IncompatiblePairError as error:
        yield _refused(name, error, holder, error.report)
    except sd.SpecDecError as error:
        yield _refused(name, error, holder)
    except Exception as error:
        log.exception("A preset could not be loaded")
        fault = f"Loading failed unexpectedly ({type(error).__name__}); the server's log has the details."
        yield _refused(name, RuntimeError(fault), holder)


def load_steps(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool
) -> Iterator[tuple[str, float | None] | Loaded]:
    """What is being done and its share, then the loaded pair. Raises what loading raises."""
    if locked:
        raise LockedError("The operator of this page has fixed what is loaded.")
    preset = presets.get(name)
    loaded = holder.current
    if loaded is None or loaded.preset.name != name:
        work = _Loading(holder, preset, visitor)
        yield from work.progress()
        loaded = work.result()
    visitor.seen_pair = loaded.number
    yield loaded


def cancel(visitor: Visitor, holder: EngineHolder) -> bool:
    """Calls off the load that this visitor asked for; the pair before goes on answering."""
    return holder.cancel(visitor)


def current(visitor: Visitor, holder: EngineHolder) -> LoadFrame:
    """What the page shows when it is opened."""
    loaded = holder.current
    if loaded is not None:
        visitor.seen_pair = loaded.number
        return shown(loaded)
    if holder.loading is not None:
        visitor.waiting = True
        return LoadFrame(
            status=status.loading(holder.loading, "Somebody else on this page has asked for it.", None),
            loading=True,
        )
    return LoadFrame(status=status.empty())


def changed(visitor: Visitor, holder: EngineHolder) -> LoadFrame:
    """What the page shows when somebody else has replaced the pair; nothing where nobody has."""
    if visitor.waiting and holder.loading is None:
        visitor.waiting = False
        return current(visitor, holder)
    loaded = holder.current
    if loaded is None or loaded.number == visitor.seen_pair:
        return LoadFrame()
    visitor.seen_pair = loaded.number
    return shown(loaded)


def shown(loaded: Loaded) -> LoadFrame:
    """A loaded pair with its own settings and examples."""
    return LoadFrame(
        status=status.ready(loaded, loaded.report),
        settings=panel_values(loaded.engine.default_settings),
        takes_system_message=loaded.engine.info.takes_system_message,
        examples=list(loaded.preset.examples),
        loaded=loaded.preset.name,
    )


def _cancelled(name: str, holder: EngineHolder) -> LoadFrame:
    loaded = holder.current
    return LoadFrame(status=status.cancelled(name, loaded), loaded=loaded.preset.name if loaded else None)


def _refused(name: str, error: Exception, holder: EngineHolder, report: Any = None) -> LoadFrame:
    return LoadFrame(status=status.refused(name, error, holder.current, report))


class _Loading:
    """One load in a thread of its own, so that its progress can be shown."""

    def __init__(self, holder: EngineHolder, preset: Any, visitor: Visitor) -> None:
        self._events: queue.Queue[tuple[str, float | None] | None] = queue.Queue()
        self._loaded: Loaded | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(holder, preset, visitor), daemon=True)
        self._thread.start()

    def _run(self, holder: EngineHolder, preset: Any, visitor: Visitor) -> None:
        try:
            self._loaded = holder.load(
                preset, lambda message, fraction: self._events.put((message, fraction)), visitor
            )
        except Exception as error:
            self._error = error
        finally:
            self._events.put(None)

    def progress(self) -> Iterator[tuple[str, float | None]]:
        """What is being done, until nothing more is."""
        while (event := self._events.get()) is not None:
            yield event

    def result(self) -> Loaded:
        """The loaded pair. Raises what loading raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._loaded
