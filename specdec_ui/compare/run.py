"""Runs the lanes of a comparison: one after the other, or live, taking turns round by round.

Knows the engine's public names; nothing of components or of how results are shown.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import specdec_core as sd
from specdec_core.trace import Round, emitted_ids

from .comparison import PEERS, TITLES, Comparison, Costs, Lane

LONGEST_PREDICTED = 8
"""Speedups are predicted for gamma up to here, or up to the one that was used."""
WARM_UP_TOKENS = 16


@dataclass(frozen=True)
class Asked:
    """Which lanes there are to be beside plain decoding and the drafter's, and whether to watch them live."""

    ngram: bool = False
    peers: tuple[str, ...] = ()
    live: bool = False


@dataclass(frozen=True)
class Running:
    """How far a comparison is: `done` of `lanes` finished, `new_tokens` in the one that `name` says."""

    name: str
    done: float
    lanes: int
    new_tokens: int
    max_new_tokens: int


@dataclass(frozen=True)
class LiveStart:
    """Live lanes begin: each one's name and settings."""

    lanes: tuple[tuple[str, sd.Settings], ...]


@dataclass(frozen=True)
class LiveRound:
    """A round of the lane at that index, just decoded."""

    lane: int
    round: Round


Step = Running | LiveStart | LiveRound | Comparison


def plan(settings: sd.Settings, asked: Asked, has_drafter: bool) -> list[tuple[str, sd.Settings]]:
    """Lanes by name with the settings of each; one seed for all. Raises SettingsError."""
    if settings.gamma == 0:
        raise sd.SettingsError(
            "gamma is 0, which is plain decoding: there is nothing to compare it with. Set it to 1 or more."
        )
    seed = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    settings = replace(settings, seed=seed, drafting="model")
    lanes = [("plain", replace(settings, gamma=0))]
    if has_drafter:
        lanes.append(("model", settings))
    if asked.ngram or not has_drafter:
        lanes.append(("ngram", replace(settings, drafting="ngram")))
    if not asked.live:
        lanes += [(name, settings) for name in PEERS if name in asked.peers]
    return lanes


def compare(
    engine: Any,
    prompt: str,
    settings: sd.Settings,
    asked: Asked,
    cancel: threading.Event,
    turn: int = 0,
) -> Iterator[Step]:
    """Answers `prompt` once in each lane, each in a session of its own after a warm-up that is not counted.

    Yields after every round, at last the comparison; nothing more once `cancel` is set. `turn` rotates which
    lane goes first. Raises what the engine raises.
    """
    lanes = plan(settings, asked, engine.info.drafter is not None)
    if asked.live:
        yield from _live(engine, prompt, lanes, asked, cancel)
        return
    messages = _messages(prompt)
    finished: dict[str, Lane] = {}
    left_out: list[str] = []
    for at in range(len(lanes)):
        name, chosen = lanes[(at + turn) % len(lanes)]
        yield Running(name, at, len(lanes), 0, chosen.max_new_tokens)
        rounds: list[Round] = []
        count = 0
        try:
            _warm_up(engine, messages, name, chosen, cancel)
            with closing(_answer(engine, messages, name, chosen, cancel)) as answer:
                for rnd in answer:
                    rounds.append(rnd)
                    count += len(rnd.emitted)
                    yield Running(name, at, len(lanes), count, chosen.max_new_tokens)
        except sd.SpecDecError as error:
            if name not in PEERS:
                raise
            left_out.append(f"{TITLES[name]} was left out: {error}")
            continue
        if cancel.is_set():
            return
        finished[name] = _lane(engine, name, chosen, rounds)
    done = tuple(finished[name] for name, _ in lanes if name in finished)
    yield with_margins(engine, Comparison(prompt, done, engine.info, left_out=tuple(left_out)))


def _live(
    engine: Any,
    prompt: str,
    lanes: list[tuple[str, sd.Settings]],
    asked: Asked,
    cancel: threading.Event,
) -> Iterator[Step]:
    """A round of each lane in turn until all have ended; the engine's turn is held for a round at a time."""
    messages = _messages(prompt)
    for name, chosen in lanes:
        yield Running(name, 0, len(lanes), 0, chosen.max_new_tokens)
        _warm_up(engine, messages, name, chosen, cancel)
    yield LiveStart(tuple(lanes))
    rounds: list[list[Round]] = [[] for _ in lanes]
    with ExitStack() as open_answers:
        answers = {
            at: open_answers.enter_context(closing(_answer(engine, messages, name, chosen, cancel)))
            for at, (name, chosen) in enumerate(lanes)
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
        f"{TITLES[name]} cannot take turns, so it is left out of a live comparison." for name in asked.peers
    )
    done = [_lane(engine, name, chosen, own) for (name, chosen), own in zip(lanes, rounds, strict=True)]
    yield with_margins(engine, Comparison(prompt, tuple(done), engine.info, live=True, left_out=left_out))


def with_margins(engine: Any, comparison: Comparison) -> Comparison:
    """The comparison with how close the choice was where a lane parts that should not have."""
    ids = emitted_ids(comparison.plain.rounds)
    margins = {
        lane.name: engine.margin(_messages(comparison.prompt), ids[: parting.position], lane.settings)
        for lane in comparison.others
        if comparison.same_text_promised(lane) and (parting := comparison.divergence(lane)) is not None
    }
    return replace(comparison, margins=margins)


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _lane(engine: Any, name: str, settings: sd.Settings, rounds: list[Round]) -> Lane:
    return Lane(name, settings, rounds, step_costs(engine, settings) if name == "model" else None)


def _warm_up(
    engine: Any, messages: list[dict[str, str]], name: str, settings: sd.Settings, cancel: threading.Event
) -> None:
    short = replace(settings, max_new_tokens=min(WARM_UP_TOKENS, settings.max_new_tokens))
    for _ in _answer(engine, messages, name, short, cancel):
        pass


def _answer(
    engine: Any, messages: list[dict[str, str]], name: str, settings: sd.Settings, cancel: threading.Event
) -> Iterator[Round]:
    if name in PEERS:
        assisted = name == "assisted"
        with closing(engine.peer_stream(messages, settings, assisted=assisted, cancel=cancel)) as rounds:
            yield from rounds
        return
    session = engine.session()
    try:
        with closing(engine.stream(messages, settings, session, cancel)) as rounds:
            yield from rounds
    finally:
        session.close()


def step_costs(engine: Any, settings: sd.Settings) -> Costs:
    """The engine's measured costs for this way of drafting, as they are after the answers so far."""
    longest = LONGEST_PREDICTED if settings.gamma == "auto" else max(LONGEST_PREDICTED, settings.gamma)
    measured = engine.costs[settings.drafting]
    return Costs(measured.drafter, tuple(measured.v(rows) for rows in range(1, longest + 2)))
