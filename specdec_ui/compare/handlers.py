"""What the Compare tab does: one prompt or a list of them, measured lane after lane; input to frames.

Knows visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import specdec_core as sd

from ..parts import settings_panel
from ..parts.frames import notice
from ..parts.messages import checked_message
from ..state.holder import EngineHolder
from ..state.visitors import Visitor
from . import result as compare_result
from .comparison import TITLES, Comparison
from .race import LiveRace, race
from .run import Asked, LiveRound, LiveStart, Running, Step, compare

log = logging.getLogger(__name__)

FRAME_S = 0.25
"""Progress is shown this often: more would take time from what is being measured."""
LIVE_FRAME_S = 0.05
MOST_PROMPTS = 200
MOST_BYTES = 1_000_000
_LINE_S = 0.5
_LIVE = (
    '<div class="compare-progress" role="status"><p>Live: a round of each lane in turn, each with its own '
    "clock.</p></div>"
)
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
    asked: Asked,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compares one prompt and shows the result; live, the lanes as they grow too."""

    def steps() -> Iterator[CompareFrame]:
        text = checked_message(prompt)
        live: LiveRace | None = None
        due = 0.0
        with closing(measured(visitor, holder, [text], values, asked)) as measuring:
            for step in measuring:
                if isinstance(step, LiveStart):
                    live = LiveRace(step.lanes, time.time_ns())
                    yield CompareFrame(progress=_LIVE, race=live.text)
                elif isinstance(step, LiveRound):
                    live.add(step.lane, step.round)
                    if time.monotonic() >= due:
                        due = time.monotonic() + min(frame_s, LIVE_FRAME_S)
                        yield CompareFrame(race=live.text)
                elif isinstance(step, Comparison):
                    for lane in step.lanes:
                        if not lane.is_peer:
                            visitor.keep(text, lane.settings, step.info, lane.rounds)
                    yield CompareFrame(
                        progress="",
                        headline=compare_result.headline(step),
                        race=live.finish(step) if live else race(step, time.time_ns()),
                        charts=compare_result.charts(step),
                    )
                else:
                    yield CompareFrame(progress=_doing(step))

    yield from _shown(steps(), CompareFrame(headline="", race="", charts=""), frame_s)


def run_list(
    visitor: Visitor,
    holder: EngineHolder,
    typed: str,
    values: tuple[Any, ...],
    asked: Asked,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compares every prompt of a list, never live; the table grows by a row a prompt."""

    def steps() -> Iterator[CompareFrame]:
        prompts = read_prompts(typed)
        done: list[Comparison] = []
        with closing(measured(visitor, holder, prompts, values, replace(asked, live=False))) as measuring:
            for step in measuring:
                if isinstance(step, Comparison):
                    done.append(step)
                    yield CompareFrame(table=compare_result.table(done, len(prompts)))
                else:
                    yield CompareFrame(progress=_doing(step, len(done), len(prompts)))
        if len(done) == len(prompts):
            yield CompareFrame(progress="")

    yield from _shown(steps(), CompareFrame(table=""), frame_s)


def measured(
    visitor: Visitor,
    holder: EngineHolder,
    prompts: list[str],
    values: tuple[Any, ...] | sd.Settings,
    asked: Asked,
) -> Iterator[str | Step]:
    """What is being waited for, how far it is, and each comparison when it is done.

    Raises what the engine raises, NothingLoadedError and BusyError; ends early where the visitor stops it.
    """
    with visitor.work(holder) as (loaded, cancel):
        engine = loaded.engine
        if not isinstance(values, sd.Settings):
            values = settings_from(engine.default_settings, values)
        with holder.measuring.place() as place:
            while place.ahead and not cancel.is_set():
                yield _in_line(place.ahead)
                place.wait(_LINE_S)
            for turn, prompt in enumerate(prompts):
                if cancel.is_set():
                    return
                disturbed = False
                try:
                    with closing(compare(engine, prompt, values, asked, cancel, turn)) as steps:
                        for step in steps:
                            disturbed = disturbed or loaded.answers - len(holder.measuring) > 0
                            if isinstance(step, Comparison):
                                step = replace(step, disturbed=disturbed)
                            yield step
                except sd.PromptError as error:
                    if len(prompts) == 1:
                        raise
                    raise sd.PromptError(f"Prompt {turn + 1} of {len(prompts)}: {error}") from error


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
    if "\0" in text:
        raise sd.PromptError("The file is not text. Give a text file with one prompt a line.")
    return "\n".join(read_prompts(text))


def _in_line(ahead: int) -> str:
    others = "another comparison" if ahead == 1 else f"{ahead} other comparisons"
    return (
        f"Number {ahead} in line: waiting for {others} to end, so that none slows another down. "
        "Cancel leaves the line."
    )


def _shown(steps: Generator[CompareFrame], cleared: CompareFrame, frame_s: float) -> Iterator[CompareFrame]:
    """The frames between the press of the button and its coming back; progress at most every `frame_s`."""
    begun, finished, due = False, False, 0.0
    try:
        with closing(steps) as frames:
            for frame in frames:
                if not begun:
                    yield replace(cleared, progress=_progress("Beginning.", None), running=True)
                    begun = True
                only_progress = bool(frame.progress) and frame.table is None and frame.race is None
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


def _doing(step: str | Running, prompts_done: int = 0, prompts: int = 1) -> str:
    if isinstance(step, str):
        return _progress(step, None)
    lane_share = min(step.new_tokens / step.max_new_tokens, 1)
    share = (prompts_done + (step.done + lane_share) / step.lanes) / prompts
    return _progress(doing(step, prompts_done, prompts), share)


def doing(step: str | Running, prompts_done: int = 0, prompts: int = 1) -> str:
    """The step in words."""
    if isinstance(step, str):
        return step
    which = f"Prompt {prompts_done + 1} of {prompts}. " if prompts > 1 else ""
    if not step.new_tokens:
        return f"{which}{TITLES[step.name]}: warming up and reading the prompt."
    return f"{which}{TITLES[step.name]}: {step.new_tokens} tokens so far."


def _progress(doing: str, share: float | None) -> str:
    value = "" if share is None else f' value="{share:.3f}"'
    return (
        f'<div class="compare-progress" role="status"><p>{escape(doing)}</p>'
        f'<progress max="1"{value} aria-label="Comparison"></progress></div>'
    )
