"""What the Compare tab does: one prompt or a list of them, measured lane after lane; input to frames.

Knows visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import specdec_core as sd

from . import compare_result, settings_panel
from .comparison import TITLES, Comparison, Running, compare
from .frames import notice
from .holder import EngineHolder
from .messages import checked_message
from .race import race
from .visitors import Visitor

log = logging.getLogger(__name__)

FRAME_S = 0.25
"""Progress is shown this often: more would take time from what is being measured."""
MOST_PROMPTS = 200
MOST_BYTES = 1_000_000
_FAULT = "The comparison broke off because of a fault on the server; its log has the details."

CONTROLS = ("gamma", "auto_gamma", "temperature", "max_new_tokens", "verification", "seed")
"""What the tab asks for; the rest is the preset's."""


@dataclass(frozen=True)
class CompareFrame:
    """Only what is not None changes on the page; all but `race` are HTML made here."""

    progress: str | None = None
    headline: str | None = None
    race: str | None = None
    charts: str | None = None
    table: str | None = None
    running: bool | None = None


def settings_from(defaults: sd.Settings, values: tuple[Any, ...]) -> sd.Settings:
    """The tab's values over the preset's settings. Raises SettingsError, naming the field."""
    given = dict(zip(settings_panel.FIELDS, settings_panel.panel_values(defaults), strict=True))
    given |= dict(zip(CONTROLS, values, strict=True))
    return settings_panel.settings_from(defaults, tuple(given.values()))


def control_values(settings: sd.Settings) -> list[Any]:
    """What the controls show for a preset: coupled with a seed, so that both texts are the same."""
    shown = dict(zip(settings_panel.FIELDS, settings_panel.panel_values(settings), strict=True))
    shown |= {"verification": "coupled", "seed": 7 if settings.seed is None else settings.seed}
    if settings.gamma == 0:
        shown["gamma"] = settings_panel.DEFAULT_GAMMA
    return [shown[name] for name in CONTROLS]


def run(
    visitor: Visitor,
    holder: EngineHolder,
    prompt: str,
    values: tuple[Any, ...],
    ngram: bool,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compares one prompt and shows the result."""

    def steps() -> Iterator[CompareFrame]:
        text = checked_message(prompt)
        with closing(measured(visitor, holder, [text], values, ngram)) as measuring:
            for step in measuring:
                if isinstance(step, Comparison):
                    for lane in step.lanes:
                        visitor.keep(text, lane.settings, step.info, lane.rounds)
                    yield CompareFrame(
                        progress="",
                        headline=compare_result.headline(step),
                        race=race(step, time.time_ns()),
                        charts=compare_result.charts(step),
                    )
                elif isinstance(step, str):
                    yield CompareFrame(progress=_progress(step, None))
                else:
                    yield CompareFrame(progress=_running(step))

    yield from _shown(steps(), CompareFrame(headline="", race="", charts=""), frame_s)


def run_list(
    visitor: Visitor,
    holder: EngineHolder,
    typed: str,
    values: tuple[Any, ...],
    ngram: bool,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compares every prompt of a list; the table grows by a row a prompt."""

    def steps() -> Iterator[CompareFrame]:
        prompts = read_prompts(typed)
        done: list[Comparison] = []
        with closing(measured(visitor, holder, prompts, values, ngram)) as measuring:
            for step in measuring:
                if isinstance(step, Comparison):
                    done.append(step)
                    yield CompareFrame(table=compare_result.table(done, len(prompts)))
                elif isinstance(step, str):
                    yield CompareFrame(progress=_progress(step, None))
                else:
                    yield CompareFrame(progress=_running(step, len(done), len(prompts)))
        if len(done) == len(prompts):
            yield CompareFrame(progress="")

    yield from _shown(steps(), CompareFrame(table=""), frame_s)


def measured(
    visitor: Visitor,
    holder: EngineHolder,
    prompts: list[str],
    values: tuple[Any, ...] | sd.Settings,
    ngram: bool,
) -> Iterator[str | Running | Comparison]:
    """What is being waited for, how far it is, and each comparison when it is done.

    Raises what the engine raises, NothingLoadedError and BusyError; ends early where the visitor stops it.
    """
    with visitor.work(holder) as (loaded, cancel):
        engine = loaded.engine
        if not isinstance(values, sd.Settings):
            values = settings_from(engine.default_settings, values)
        with _one_at_a_time(holder.measuring, cancel) as waiting:
            yield from waiting
            for turn, prompt in enumerate(prompts):
                disturbed = False
                with closing(compare(engine, prompt, values, ngram, cancel, turn)) as steps:
                    for step in steps:
                        disturbed = disturbed or loaded.answers > 1
                        if isinstance(step, Comparison):
                            step = replace(step, disturbed=disturbed)
                        yield step
                if cancel.is_set():
                    return


def read_prompts(typed: str) -> list[str]:
    """The prompts of a list, one a line. Raises PromptError."""
    prompts = [checked_message(line.strip()) for line in (typed or "").splitlines() if line.strip()]
    if not prompts:
        raise sd.PromptError("The list is empty. Write one prompt a line, or take a list from a text file.")
    if len(prompts) > MOST_PROMPTS:
        raise sd.PromptError(f"The list has {len(prompts)} prompts; {MOST_PROMPTS} are the most at a time.")
    return prompts


def read_prompts_file(data: bytes) -> str:
    """The list in a text file, one prompt a line. Raises PromptError where it cannot be one."""
    if len(data) > MOST_BYTES:
        raise sd.PromptError("The file is larger than 1 MB. Give a text file with one prompt a line.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise sd.PromptError(
            "The file is not UTF-8 text. Give a text file with one prompt a line."
        ) from error
    return "\n".join(read_prompts(text))


@contextmanager
def _one_at_a_time(lock: threading.Lock, cancel: threading.Event) -> Iterator[Iterator[str]]:
    """Comparisons would slow each other down; the iterator says what is waited for and ends with the turn."""
    held = lock.acquire(blocking=False)

    def waiting() -> Iterator[str]:
        nonlocal held
        while not held and not cancel.is_set():
            yield "Waiting for another comparison to end, so that neither slows the other down."
            held = lock.acquire(timeout=0.5)

    try:
        yield waiting()
    finally:
        if held:
            lock.release()


def _shown(steps: Generator[CompareFrame], cleared: CompareFrame, frame_s: float) -> Iterator[CompareFrame]:
    """The frames between the press of the button and its coming back; progress at most every `frame_s`."""
    begun, finished, due = False, False, 0.0
    try:
        with closing(steps) as frames:
            for frame in frames:
                if not begun:
                    yield replace(cleared, progress=_progress("Beginning.", None), running=True)
                    begun = True
                only_progress = bool(frame.progress) and frame.table is None
                finished = finished or frame.progress == ""
                if only_progress and time.monotonic() < due:
                    continue
                due = time.monotonic() + frame_s
                yield frame
        progress = None if finished else notice("Cancelled.")
    except sd.SpecDecError as error:
        progress = notice(str(error))
    except Exception:
        log.exception("A comparison broke off")
        progress = notice(_FAULT)
    yield CompareFrame(progress=progress, running=False)


def _running(step: Running, prompts_done: int = 0, prompts: int = 1) -> str:
    lane_share = min(step.new_tokens / step.max_new_tokens, 1)
    share = (prompts_done + (step.done + lane_share) / step.lanes) / prompts
    which = f"Prompt {prompts_done + 1} of {prompts}. " if prompts > 1 else ""
    doing = f"{which}{TITLES[step.name]}: {step.new_tokens} tokens so far."
    return _progress(doing, share)


def _progress(doing: str, share: float | None) -> str:
    value = "" if share is None else f' value="{share:.3f}"'
    return (
        f'<div class="compare-progress" role="status"><p>{escape(doing)}</p>'
        f'<progress max="1"{value} aria-label="Comparison"></progress></div>'
    )
