"""Running the lanes of a comparison: one after the other, or live, taking turns round by round.

Knows the engine's public names; nothing of components or of how results are shown.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import specdec_core as sd

from .comparison import PEERS, TITLES, Comparison, Costs, LaneAnswer

LONGEST_PREDICTED = 8
"""Speedups are predicted for gamma up to this one, or up to the gamma in use."""
WARM_UP_TOKENS = 16
"""Most tokens of a lane's warm-up."""

LaneSettings = tuple[str, sd.Settings]
"""A lane's name and its settings."""


@dataclass(frozen=True)
class LaneChoice:
    """Lanes to run beside plain decoding and the drafter's; `live` runs them in turns."""

    ngram: bool = False
    peers: tuple[str, ...] = ()
    live: bool = False


@dataclass(frozen=True)
class LaneProgress:
    """Progress of a comparison: `done` of `lanes` finished, `new_tokens` so far in the lane `name`."""

    name: str
    done: int
    lanes: int
    new_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class LiveStart:
    """The start of live lanes: name and settings of each."""

    lanes: tuple[LaneSettings, ...]


@dataclass(frozen=True)
class LiveRound:
    """A round of the lane at that index, just decoded."""

    lane: int
    round: sd.Round


Step = LaneProgress | LiveStart | LiveRound | Comparison
"""A step of a comparison; the comparison itself is the last."""


def plan(settings: sd.Settings, choice: LaneChoice, has_drafter: bool) -> list[LaneSettings]:
    """Return the lanes with the settings of each; one seed for all. Raises SettingsError."""
    if settings.gamma == 0:
        raise sd.SettingsError(
            "gamma is 0, which is plain decoding: there is nothing to compare it with. Set it to 1 or more."
        )
    seed = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    settings = replace(settings, seed=seed, drafting="model")
    lanes = [("plain", replace(settings, gamma=0))]
    if has_drafter:
        lanes.append(("model", settings))
    if choice.ngram or not has_drafter:
        lanes.append(("ngram", replace(settings, drafting="ngram")))
    if not choice.live:
        lanes += [(name, settings) for name in PEERS if name in choice.peers]
    return lanes


def compare(
    engine: sd.ChatEngine,
    prompt: str,
    settings: sd.Settings,
    choice: LaneChoice,
    cancel: threading.Event,
    turn: int = 0,
) -> Generator[Step]:
    """Answer `prompt` once in each lane, each in a session of its own after a warm-up that is not counted.

    Yields after every round, and the comparison at the end; stops once `cancel` is set. `turn` rotates the
    order of the lanes. Raises what the engine raises.
    """
    lanes = plan(settings, choice, engine.info.drafter is not None)
    if choice.live:
        yield from _live(engine, prompt, lanes, choice, cancel)
        return
    answers: dict[str, LaneAnswer] = {}
    left_out: list[str] = []
    for done in range(len(lanes)):
        name, lane_settings = lanes[(done + turn) % len(lanes)]
        rounds: list[sd.Round] = []
        new_tokens = 0
        yield LaneProgress(name, done, len(lanes), 0, lane_settings.max_new_tokens)
        try:
            _warm_up(engine, prompt, name, lane_settings, cancel)
            with closing(_answer(engine, prompt, name, lane_settings, cancel)) as answer:
                for rnd in answer:
                    rounds.append(rnd)
                    new_tokens += len(rnd.emitted)
                    yield LaneProgress(name, done, len(lanes), new_tokens, lane_settings.max_new_tokens)
        except sd.SpecDecError as error:
            if name not in PEERS:
                raise
            left_out.append(f"{TITLES[name]} was left out: {error}")
            continue
        if cancel.is_set():
            return
        answers[name] = _lane_answer(engine, name, lane_settings, rounds)
    in_order = tuple(answers[name] for name, _ in lanes if name in answers)
    yield with_margins(engine, Comparison(prompt, in_order, engine.info, left_out=tuple(left_out)))


def _live(
    engine: sd.ChatEngine,
    prompt: str,
    lanes: list[LaneSettings],
    choice: LaneChoice,
    cancel: threading.Event,
) -> Generator[Step]:
    """A round of each lane in turn until all have ended; the engine's turn is taken round by round."""
    for name, settings in lanes:
        yield LaneProgress(name, 0, len(lanes), 0, settings.max_new_tokens)
        _warm_up(engine, prompt, name, settings, cancel)
    yield LiveStart(tuple(lanes))
    rounds: list[list[sd.Round]] = [[] for _ in lanes]
    with ExitStack() as open_answers:
        answers = {
            at: open_answers.enter_context(closing(_answer(engine, prompt, name, settings, cancel)))
            for at, (name, settings) in enumerate(lanes)
        }
        while answers:
            for at, answer in list(answers.items()):
                if cancel.is_set():
                    return
                rnd = next(answer, None)
                if rnd is None:
                    del answers[at]
                    continue
                rounds[at].append(rnd)
                yield LiveRound(at, rnd)
    if cancel.is_set():
        return
    left_out = tuple(
        f"{TITLES[name]} cannot take turns, so it is left out of a live comparison." for name in choice.peers
    )
    lane_answers = tuple(
        _lane_answer(engine, name, settings, own) for (name, settings), own in zip(lanes, rounds, strict=True)
    )
    yield with_margins(engine, Comparison(prompt, lane_answers, engine.info, live=True, left_out=left_out))


def with_margins(engine: sd.ChatEngine, comparison: Comparison) -> Comparison:
    """Return the comparison with the margin of each lane that differs from the baseline and should not."""
    ids = sd.emitted_ids(comparison.baseline.rounds)
    margins = {
        lane.name: engine.margin(_messages(comparison.prompt), ids[: divergence.position], lane.settings)
        for lane in comparison.other_lanes
        if comparison.same_text_promised(lane) and (divergence := comparison.divergence(lane)) is not None
    }
    return replace(comparison, margins=margins)


def step_costs(engine: sd.ChatEngine, settings: sd.Settings) -> Costs:
    """Return the engine's measured costs for this way of drafting, as of the answers so far."""
    longest = LONGEST_PREDICTED if settings.gamma == "auto" else max(LONGEST_PREDICTED, settings.gamma)
    measured = engine.costs[settings.drafting]
    return Costs(measured.drafter, tuple(measured.v(rows) for rows in range(1, longest + 2)))


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _lane_answer(
    engine: sd.ChatEngine, name: str, settings: sd.Settings, rounds: list[sd.Round]
) -> LaneAnswer:
    return LaneAnswer(name, settings, rounds, step_costs(engine, settings) if name == "model" else None)


def _warm_up(
    engine: sd.ChatEngine, prompt: str, name: str, settings: sd.Settings, cancel: threading.Event
) -> None:
    short = replace(settings, max_new_tokens=min(WARM_UP_TOKENS, settings.max_new_tokens))
    for _ in _answer(engine, prompt, name, short, cancel):
        pass


def _answer(
    engine: sd.ChatEngine, prompt: str, name: str, settings: sd.Settings, cancel: threading.Event
) -> Generator[sd.Round]:
    """The rounds of one lane's answer. Closing it closes the engine's stream."""
    messages = _messages(prompt)
    if name in PEERS:
        yield from engine.peer_stream(messages, settings, assisted=name == "assisted", cancel=cancel)
        return
    session = engine.session()
    try:
        yield from engine.stream(messages, settings, session, cancel)
    finally:
        session.close()
