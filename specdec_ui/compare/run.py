"""Running the lanes of a comparison: our own in turns, stretch by stretch, or whole answers one by one.

Knows the engine's public names; nothing of components or of how results are shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial

import specdec_core as sd

from .alternation import Alternation, LiveRound, Sweep
from .comparison import PEERS, TITLES, Comparison, Costs, LaneAnswer
from .lanes import Asker, LaneChoice, LaneSettings, plan
from .speedup import all_narrow

LONGEST_PREDICTED = 8
"""Speedups are predicted for gamma up to this one, or up to the gamma in use."""


@dataclass(frozen=True)
class LaneProgress:
    """Progress of whole answers: `done` of `lanes` finished, `new_tokens` so far in the lane `name`; `again`
    once all lanes have answered.
    """

    name: str
    done: int
    lanes: int
    new_tokens: int
    max_new_tokens: int
    again: bool = False


@dataclass(frozen=True)
class LiveStart:
    """The start of lanes that decode in turns: name and settings of each."""

    lanes: tuple[LaneSettings, ...]


Step = LaneProgress | LiveStart | LiveRound | Sweep | Comparison
"""A step of a comparison; the comparison itself is the last."""


def compare(
    engine: sd.ChatEngine,
    prompt: str,
    settings: sd.Settings,
    choice: LaneChoice,
    cancel: threading.Event,
    turn: int = 0,
) -> Generator[Step]:
    """Answer `prompt` in each lane, each in a session of its own after a warm-up that is not counted.

    Other code's lanes cannot pause: they run whole, in turn with whole plain answers. Yields as rounds are
    decoded, and the comparison at the end. Setting `cancel` ends it, without a comparison if a lane has not
    answered by then. `turn` rotates the order of the lanes. Raises what the engine raises.
    """
    lanes = plan(settings, choice, engine.info.drafter is not None)
    run = _Run(Asker(engine, prompt, cancel), choice.repeat_s, turn)
    if choice.alternate:
        own = [lane for lane in lanes if lane[0] not in PEERS]
        yield from run.in_turns(own)
        whole = [lane for lane in lanes if lane not in own[1:]]
    else:
        whole = lanes
    if len(whole) > 1 and not cancel.is_set():
        yield from run.whole(whole)
    if all(name in run.answers or name in run.left_out for name, _ in lanes):
        answers = tuple(
            _lane_answer(engine, name, lane_settings, run.answers[name])
            for name, lane_settings in lanes
            if name in run.answers
        )
        comparison = Comparison(
            prompt,
            answers,
            engine.info,
            speedups=run.speedups,
            alternated=choice.alternate,
            left_out=tuple(run.left_out.values()),
        )
        yield with_margins(engine, comparison)


@dataclass
class _Run:
    """A comparison in progress: first answers and speedups of lanes by name, and for each lane that could not
    run a sentence.
    """

    asker: Asker
    repeat_s: float
    turn: int
    answers: dict[str, list[sd.Round]] = field(default_factory=dict)
    speedups: dict[str, sd.Ratio] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def in_turns(self, lanes: Sequence[LaneSettings]) -> Generator[Step]:
        """Decode lanes in turns. Nothing is kept of them if one has not answered when it is cancelled."""
        cancel = self.asker.cancel
        for lane in lanes:
            yield LaneProgress(lane[0], 0, len(lanes), 0, lane[1].max_new_tokens)
            self.asker.warm_up(lane)
        yield LiveStart(tuple(lanes))
        with ExitStack() as sessions:
            begins = [
                partial(self.asker.answer_in, sessions.enter_context(self.asker.session()), settings)
                for _, settings in lanes
            ]
            alternation = Alternation(begins, cancel, self.repeat_s, self.turn)
            with closing(alternation.rounds()) as steps:
                for step in steps:
                    if cancel.is_set() and not alternation.answered:
                        return
                    yield step
        if alternation.answered:
            names = [name for name, _ in lanes]
            self.answers |= zip(names, alternation.answers, strict=True)
            speedups = zip(names[1:], alternation.speedups, strict=True)
            self.speedups |= {name: speedup for name, speedup in speedups if speedup is not None}

    def whole(self, lanes: Sequence[LaneSettings]) -> Generator[Step]:
        """Answer in each lane, one after the other, plain decoding among them; each time in reverse order."""
        started = time.monotonic()
        order = [lanes[(at + self.turn) % len(lanes)] for at in range(len(lanes))]
        sweeps: list[dict[str, float]] = []
        while len(order) > 1:
            rates: dict[str, float] = {}
            for done, lane in enumerate(list(order)):
                name = lane[0]
                try:
                    rounds = yield from self._whole_answer(lane, done, len(order), again=bool(sweeps))
                except sd.SpecDecError as error:
                    if name not in PEERS:
                        raise
                    order.remove(lane)
                    if name not in self.answers:
                        self.left_out[name] = f"{TITLES[name]} was left out: {error}"
                    continue
                if self.asker.cancel.is_set():
                    return
                self.answers.setdefault(name, rounds)
                rates[name] = LaneAnswer(name, lane[1], rounds).stats.tokens_per_second or 0.0
            sweeps.append(rates)
            order.reverse()
            measured = {name: _ratio(name, sweeps) for name, _ in order if name != "plain"}
            self.speedups |= {name: speedup for name, speedup in measured.items() if speedup is not None}
            if time.monotonic() - started >= self.repeat_s or all_narrow(measured.values()):
                return

    def _whole_answer(
        self, lane: LaneSettings, done: int, lanes: int, again: bool
    ) -> Generator[LaneProgress, None, list[sd.Round]]:
        """Yield a lane's progress and return its rounds; the first time after a warm-up."""
        name, settings = lane
        rounds: list[sd.Round] = []
        new_tokens = 0
        yield LaneProgress(name, done, lanes, 0, settings.max_new_tokens, again)
        if name not in self.answers:
            self.asker.warm_up(lane)
        with closing(self.asker.answer(lane)) as answer:
            for rnd in answer:
                rounds.append(rnd)
                new_tokens += len(rnd.emitted)
                yield LaneProgress(name, done, lanes, new_tokens, settings.max_new_tokens, again)
        return rounds


def _ratio(name: str, sweeps: Sequence[dict[str, float]]) -> sd.Ratio | None:
    """The lane's rate ÷ that of plain decoding in the same sweep."""
    pairs = [(rates.get(name), rates.get("plain")) for rates in sweeps]
    ratios = [rate / plain for rate, plain in pairs if rate and plain]
    return sd.median_ratio(ratios) if ratios else None


def with_margins(engine: sd.ChatEngine, comparison: Comparison) -> Comparison:
    """Return the comparison with the margin of each lane that differs from the baseline and should not."""
    ids = sd.emitted_ids(comparison.baseline.rounds)
    messages = Asker(engine, comparison.prompt, threading.Event()).messages
    margins = {
        lane.name: engine.margin(messages, ids[:divergence], lane.settings)
        for lane in comparison.other_lanes
        if comparison.same_text_promised(lane) and (divergence := comparison.divergence(lane)) is not None
    }
    return replace(comparison, margins=margins)


def step_costs(engine: sd.ChatEngine, settings: sd.Settings) -> Costs:
    """Return the engine's measured costs of the model's drafts, as of the answers so far."""
    longest = LONGEST_PREDICTED if settings.gamma == "auto" else max(LONGEST_PREDICTED, settings.gamma)
    measured = engine.costs["model"]
    return Costs(measured.drafter, tuple(measured.v(rows) for rows in range(1, longest + 2)))


def _lane_answer(
    engine: sd.ChatEngine, name: str, settings: sd.Settings, rounds: list[sd.Round]
) -> LaneAnswer:
    return LaneAnswer(name, settings, rounds, step_costs(engine, settings) if name == "model" else None)
