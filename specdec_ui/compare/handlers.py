"""Handlers of the Compare tab: from one prompt, or a list of them, to measurements as frames for the page.

Knows visitors and the shared pair; nothing of components.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import specdec_core as sd

from ..parts.frames import notice
from ..parts.messages import checked_message
from ..parts.settings_panel import Panel
from ..state import space
from ..state.holder import EngineHolder
from ..state.visitors import Visitor
from . import result as compare_result
from .alternation import LiveRound, Sweep
from .comparison import Comparison
from .lanes import LaneChoice
from .progress import Progress, progress_bar, progress_html, queue_position
from .race import LiveRace, race
from .run import LiveStart, Step, compare

log = logging.getLogger(__name__)

FRAME_S = 0.25
"""Seconds between frames of progress: shorter ones would slow the measured lanes down."""
LIVE_FRAME_S = 0.05
"""Seconds between frames of lanes that decode in turns."""
MOST_PROMPTS = 200
"""Most prompts in a list."""
MOST_BYTES = 1_000_000
"""Most bytes in a file with a list."""
_QUEUE_S = 0.5
"""Seconds between frames of the position in the queue."""
_FAULT = "The comparison broke off because of a fault on the server; its log has the details."

PANEL = Panel(
    ("gamma", "temperature", "max_new_tokens", "verification", "seed"),
    help={
        "gamma": "Tokens drafted in a round.",
        "verification": "With coupled and a seed both texts are the same; with rejection they only follow "
        "the same probabilities.",
        "seed": "The same for all lanes.",
    },
    low={"gamma": 1},
)
"""Controls of the tab; other settings are the preset's."""


@dataclass(frozen=True)
class CompareFrame:
    """An update of the tab; None leaves a part as it is. All but `race` and `running` are HTML made here."""

    progress: str | None = None
    headline: str | None = None
    race: str | None = None
    charts: str | None = None
    table: str | None = None
    running: bool | None = None


def comparable(settings: sd.Settings) -> sd.Settings:
    """Return a preset's settings with drafts, coupled verification and a seed, so that both texts agree."""
    return replace(
        settings,
        verification="coupled",
        seed=7 if settings.seed is None else settings.seed,
        gamma=settings.gamma or sd.SETTINGS["gamma"].default,
    )


def run(
    visitor: Visitor,
    holder: EngineHolder,
    prompt: str,
    values: tuple[Any, ...],
    choice: LaneChoice,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compare one prompt; yield progress, then the result. Lanes in turns are shown as they grow."""

    def frames() -> Generator[CompareFrame]:
        text = checked_message(prompt)
        live: LiveRace | None = None
        latest = ""
        due = 0.0
        with closing(measure(visitor, holder, [text], values, choice)) as steps:
            for step in steps:
                if isinstance(step, LiveStart):
                    live = LiveRace(step.lanes, time.time_ns())
                    latest = progress_html(Sweep((0,) * len(step.lanes), None, None))
                    yield CompareFrame(progress=latest, race=live.text)
                elif isinstance(step, LiveRound) and live is not None:
                    live.add(step.lane, step.round)
                    if time.monotonic() >= due or step.round.finish_reason is not None:
                        due = time.monotonic() + min(frame_s, LIVE_FRAME_S)
                        yield CompareFrame(progress=latest, race=live.text)
                elif isinstance(step, Comparison):
                    for lane in step.lanes:
                        if step.info is not None and not lane.is_peer:
                            visitor.keep(text, lane.settings, step.info, lane.rounds)
                    yield CompareFrame(
                        progress="",
                        headline=compare_result.headline(step),
                        race=live.finish(step) if live else race(step, time.time_ns()),
                        charts=compare_result.charts(step),
                    )
                elif isinstance(step, Progress):
                    latest = progress_html(step)
                    yield CompareFrame(progress=latest)

    yield from _run_frames(frames(), CompareFrame(headline="", race="", charts=""), frame_s)


def run_list(
    visitor: Visitor,
    holder: EngineHolder,
    typed: str,
    values: tuple[Any, ...],
    choice: LaneChoice,
    frame_s: float = FRAME_S,
) -> Iterator[CompareFrame]:
    """Compare every prompt of a list once; the table grows by a row a prompt."""

    def frames() -> Generator[CompareFrame]:
        prompts = read_prompts(typed)
        done: list[Comparison] = []
        with closing(measure(visitor, holder, prompts, values, replace(choice, repeat_s=0.0))) as steps:
            for step in steps:
                if isinstance(step, Comparison):
                    done.append(step)
                    yield CompareFrame(table=compare_result.table(done, len(prompts)))
                elif isinstance(step, Progress):
                    yield CompareFrame(progress=progress_html(step, len(done), len(prompts)))
        if len(done) == len(prompts):
            yield CompareFrame(progress="")

    yield from _run_frames(frames(), CompareFrame(table=""), frame_s)


def measure(
    visitor: Visitor,
    holder: EngineHolder,
    prompts: list[str],
    values: tuple[Any, ...] | sd.Settings,
    choice: LaneChoice,
) -> Generator[str | Step]:
    """Yield the position in the queue in words, then the steps of each prompt's comparison.

    Ends early if the visitor stops it. Raises what the engine raises, NothingLoadedError and BusyError.
    """
    if space.on_zero_gpu():  # an answer has the GPU to itself, and each takes from the visitor's quota
        choice = replace(choice, alternate=False, repeat_s=0.0)
    with visitor.work(holder) as (loaded, cancel):
        engine = loaded.engine
        if not isinstance(values, sd.Settings):
            values = PANEL.settings(loaded.default_settings, values, engine.info.context_length)
        with holder.measuring.enter() as ticket:
            while ticket.ahead and not cancel.is_set():
                yield queue_position(ticket.ahead)
                ticket.wait(_QUEUE_S)
            for turn, prompt in enumerate(prompts):
                if cancel.is_set():
                    return
                disturbed = False
                try:
                    with closing(compare(engine, prompt, values, choice, cancel, turn)) as steps:
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
    """Return the prompts of a list, one a line. Raises PromptError."""
    prompts = [checked_message(line.strip()) for line in (typed or "").splitlines() if line.strip()]
    if not prompts:
        raise sd.PromptError("The list is empty. Write one prompt a line, or take a list from a text file.")
    if len(prompts) > MOST_PROMPTS:
        raise sd.PromptError(f"The list has {len(prompts)} prompts; {MOST_PROMPTS} are the most at a time.")
    return prompts


def read_prompts_file(data: bytes) -> str:
    """Return the list in a text file, one prompt a line. Raises PromptError for any other file."""
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


def _run_frames(
    frames: Generator[CompareFrame], cleared: CompareFrame, frame_s: float
) -> Iterator[CompareFrame]:
    """All frames of a run, from the disabled button to the enabled one; progress at most every `frame_s`."""
    begun, finished, due = False, False, 0.0
    try:
        with closing(frames):
            for frame in frames:
                if not begun:
                    yield replace(cleared, progress=progress_bar("Beginning.", None), running=True)
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
