"""Handlers of the load bar: loading with progress, cancellation, and the current status.

Plain functions from input to frames; they know the shared pair, nothing of components.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import specdec_core as sd

from ..parts import gate_report
from ..parts.frames import LoadFrame
from ..parts.settings_panel import CHAT_PANEL
from ..state.holder import EngineHolder, Loaded, LockedError
from ..state.presets import Presets
from ..state.visitors import Visitor
from . import status

log = logging.getLogger(__name__)


def load(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool = False
) -> Iterator[LoadFrame]:
    """Load a preset and yield its progress; a refusal leaves the current pair loaded."""
    if not locked and name in presets.usable:
        yield LoadFrame(status=status.loading(name, "Getting ready.", None), loading=True, own=True)
    try:
        for step in load_steps(visitor, holder, presets, name, locked):
            if isinstance(step, Loaded):
                yield ready(step)
            else:
                bar = status.loading(name, step.message, step.fraction)
                yield LoadFrame(status=bar, loading=True, own=True)
    except sd.LoadCancelledError:
        yield _cancelled(name, holder)
    except sd.IncompatiblePairError as error:
        yield _refused(name, str(error), holder, error.report)
    except sd.SpecDecError as error:
        yield _refused(name, str(error), holder)
    except Exception as error:
        log.exception("A preset could not be loaded")
        fault = f"Loading failed unexpectedly ({type(error).__name__}); the server's log has the details."
        yield _refused(name, fault, holder)


@dataclass(frozen=True)
class LoadStep:
    """Progress of a load: the step in words, and the completed fraction if known."""

    message: str
    fraction: float | None


def load_steps(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, locked: bool
) -> Iterator[LoadStep | Loaded]:
    """Load a preset and yield its progress, then the loaded pair. Raises what loading raises."""
    if locked:
        raise LockedError("The operator of this page has fixed what is loaded.")
    preset = presets.get(name)
    loaded = holder.current
    if loaded is None or loaded.preset.name != name:
        load = _LoadThread(holder, preset, visitor)
        yield from load.progress()
        loaded = load.result()
    visitor.displayed_pair = loaded.number
    yield loaded


def first_load(
    visitor: Visitor, holder: EngineHolder, presets: Presets, name: str, poll_s: float = 1.0
) -> Iterator[LoadFrame]:
    """Load a preset where nothing is loaded, or wait for the load in progress. The last frame has an `error`
    if nothing was loaded.
    """
    if holder.loading is None:
        yield from load(visitor, holder, presets, name)
        return
    while not holder.wait_for_load(poll_s):
        yield LoadFrame()
    if holder.current is None:
        yield LoadFrame(error="No model was loaded. Press Load at the top, then send again.")
    else:
        yield current(visitor, holder)


def cancel(visitor: Visitor, holder: EngineHolder) -> bool:
    """Cancel this visitor's load; the current pair stays loaded. Return False if there is no such load."""
    return holder.cancel(visitor)


def current(visitor: Visitor, holder: EngineHolder) -> LoadFrame:
    """Return the state of a page that is opened."""
    loaded = holder.current
    if loaded is not None:
        visitor.displayed_pair = loaded.number
        return ready(loaded)
    if holder.loading is not None:
        visitor.awaits_load = True
        return LoadFrame(
            status=status.loading(holder.loading, "Somebody else on this page has asked for it.", None),
            loading=True,
        )
    return LoadFrame(status=status.empty())


def changed(visitor: Visitor, holder: EngineHolder) -> LoadFrame:
    """Return the state of an open page after another visitor's load; an empty frame if there was none."""
    if visitor.awaits_load and holder.loading is None:
        visitor.awaits_load = False
        return current(visitor, holder)
    loaded = holder.current
    if loaded is None or loaded.number == visitor.displayed_pair:
        return LoadFrame()
    visitor.displayed_pair = loaded.number
    return ready(loaded)


def ready(loaded: Loaded) -> LoadFrame:
    """Return the state of a page with this pair, its settings and its examples."""
    return LoadFrame(
        status=status.ready(loaded),
        settings=CHAT_PANEL.values(loaded.default_settings),
        takes_system_message=loaded.engine.info.takes_system_message,
        can_switch_thinking=loaded.engine.info.can_switch_thinking,
        examples=list(loaded.preset.examples),
        loaded=loaded.preset.name,
    )


def _cancelled(name: str, holder: EngineHolder) -> LoadFrame:
    loaded = holder.current
    return LoadFrame(
        status=status.cancelled(name, loaded),
        loaded=loaded.preset.name if loaded else None,
        error=f"Loading {name} was cancelled.",
    )


def _refused(name: str, error: str, holder: EngineHolder, report: sd.PairReport | None = None) -> LoadFrame:
    reason = error if report is None else f"{gate_report.summary(report)}."
    return LoadFrame(
        status=status.refused(name, error, holder.current, report), error=f"{name} was not loaded. {reason}"
    )


class _LoadThread:
    """A load in a thread of its own, and its progress as an iterator."""

    def __init__(self, holder: EngineHolder, preset: sd.Preset, visitor: Visitor) -> None:
        self._steps: queue.Queue[LoadStep | None] = queue.Queue()
        self._result: Future[Loaded] = Future()
        threading.Thread(target=self._run, args=(holder, preset, visitor), daemon=True).start()

    def _run(self, holder: EngineHolder, preset: sd.Preset, visitor: Visitor) -> None:
        try:
            loaded = holder.load(
                preset, lambda message, fraction: self._steps.put(LoadStep(message, fraction)), visitor
            )
            self._result.set_result(loaded)
        except Exception as error:
            self._result.set_exception(error)
        except BaseException as error:
            # A panic of a library written in Rust: Gradio's queue would never answer the page.
            self._result.set_exception(RuntimeError(f"{type(error).__name__}: {error}"))
        finally:
            self._steps.put(None)

    def progress(self) -> Iterator[LoadStep]:
        """Yield the steps until the load has ended."""
        while (step := self._steps.get()) is not None:
            yield step

    def result(self) -> Loaded:
        """Wait for the end of the load and return the pair. Raises what loading raised."""
        return self._result.result()
