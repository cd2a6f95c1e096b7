"""Plain and speculative decoding of one prompt, one after the other: what was measured, as plain data.

Knows the engine's public names and the trace; nothing of components or of how results are shown.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

import specdec_core as sd
from specdec_core.metrics import expected_tokens, expected_tokens_iid, predicted_speedup
from specdec_core.trace import Round, Stats, Token, emitted_ids

LONGEST_PREDICTED = 8
"""Speedups are predicted for gamma up to here, or up to the one that was used."""
WARM_UP_TOKENS = 16

TITLES = {"plain": "Plain decoding", "model": "Speculative decoding", "ngram": "N-gram drafting"}


@dataclass(frozen=True)
class Costs:
    """What steps cost, in one-row target steps: a drafter step, and a verification by its gamma."""

    c: float
    v: tuple[float, ...]


@dataclass(frozen=True)
class Lane:
    """One answer. `name` is plain, model or ngram; `costs` is there where a model drafted."""

    name: str
    settings: sd.Settings
    rounds: list[Round]
    costs: Costs | None = None

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def stats(self) -> Stats:
        return self.rounds[-1].stats

    @property
    def text(self) -> str:
        return "".join(rnd.text for rnd in self.rounds)

    @property
    def emitted(self) -> list[Token]:
        return [token for rnd in self.rounds for token in rnd.emitted]

    @property
    def decoding_s(self) -> float:
        """Seconds of the rounds; reading the prompt, which round 0 does, is not among them."""
        return sum(rnd.seconds for rnd in self.rounds if rnd.index > 0)


@dataclass(frozen=True)
class Divergence:
    """Where two answers part: the index in the answer and both tokens, None where one had ended."""

    position: int
    plain: Token | None
    other: Token | None


@dataclass(frozen=True)
class Prediction:
    """Predicted speedups for gamma 0, 1, 2 …, from one answer's acceptance and the measured costs.

    `by_position` takes the acceptance at each position as it was measured (beyond the measured ones the
    overall rate); `one_alpha` takes the overall rate everywhere.
    """

    by_position: tuple[float, ...]
    one_alpha: tuple[float, ...]

    @property
    def best(self) -> int:
        return max(range(len(self.by_position)), key=self.by_position.__getitem__)


@dataclass(frozen=True)
class Comparison:
    """Lanes of one prompt under the same settings, the baseline first."""

    prompt: str
    lanes: tuple[Lane, ...]
    info: Any = None
    """What is loaded, as the engine describes it."""
    disturbed: bool = False
    """Other answers were made meanwhile, so that times may be longer than the pair needs."""

    @property
    def plain(self) -> Lane:
        return self.lanes[0]

    @property
    def drafted(self) -> tuple[Lane, ...]:
        return self.lanes[1:]

    def speedup(self, lane: Lane) -> float | None:
        """Measured: the lane's tokens per second of decoding ÷ the baseline's."""
        own, plain = lane.stats.tokens_per_second, self.plain.stats.tokens_per_second
        return own / plain if own and plain else None

    def plain_steps(self, lane: Lane) -> float | None:
        """How many steps of the baseline one round of the lane took the time of."""
        speedup = self.speedup(lane)
        return lane.stats.block_efficiency / speedup if speedup else None

    @property
    def same_text_promised(self) -> bool:
        """Whether these settings promise the same tokens in all lanes, up to rounding."""
        return self.plain.settings.verification == "coupled" or self.plain.settings.temperature == 0

    def divergence(self, lane: Lane) -> Divergence | None:
        """The first token that differs from the baseline's; None where all are the same."""
        for at, (plain, other) in enumerate(zip_longest(self.plain.emitted, lane.emitted)):
            if plain is None or other is None or plain.id != other.id:
                return Divergence(at, plain, other)
        return None


@dataclass(frozen=True)
class Running:
    """How far a comparison is: `done` of `lanes` finished, `new_tokens` in the one that `name` says."""

    name: str
    done: int
    lanes: int
    new_tokens: int
    max_new_tokens: int


def plan(settings: sd.Settings, ngram: bool, has_drafter: bool) -> list[tuple[str, sd.Settings]]:
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
    if ngram or not has_drafter:
        lanes.append(("ngram", replace(settings, drafting="ngram")))
    return lanes


def compare(
    engine: Any,
    prompt: str,
    settings: sd.Settings,
    ngram: bool,
    cancel: threading.Event,
    turn: int = 0,
) -> Iterator[Running | Comparison]:
    """Answers `prompt` once in each lane, each in a session of its own after a warm-up that is not counted.

    Yields after every round, at last the comparison; nothing more once `cancel` is set. `turn` rotates which
    lane goes first. Raises what the engine raises.
    """
    lanes = plan(settings, ngram, engine.info.drafter is not None)
    messages = [{"role": "user", "content": prompt}]
    finished: dict[str, Lane] = {}
    for at in range(len(lanes)):
        name, chosen = lanes[(at + turn) % len(lanes)]
        yield Running(name, at, len(lanes), 0, chosen.max_new_tokens)
        warm_up = replace(chosen, max_new_tokens=min(WARM_UP_TOKENS, chosen.max_new_tokens))
        for _ in _answer(engine, messages, warm_up, cancel):
            pass
        rounds: list[Round] = []
        count = 0
        with closing(_answer(engine, messages, chosen, cancel)) as answer:
            for rnd in answer:
                rounds.append(rnd)
                count += len(rnd.emitted)
                yield Running(name, at, len(lanes), count, chosen.max_new_tokens)
        if cancel.is_set():
            return
        finished[name] = Lane(name, chosen, rounds, step_costs(engine, chosen) if name == "model" else None)
    yield Comparison(prompt, tuple(finished[name] for name, _ in lanes), engine.info)


def _answer(
    engine: Any, messages: list[dict[str, str]], settings: sd.Settings, cancel: threading.Event
) -> Iterator[Round]:
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


def predict(lane: Lane) -> Prediction | None:
    """Speedups over gamma for a lane's acceptance; None where no draft was tested.

    None for n-gram drafting too: the formula takes it that every round drafts, and there many cannot.
    """
    alpha = lane.stats.acceptance_rate
    if alpha is None or lane.name != "model":
        return None
    gammas = range(len(lane.costs.v))
    measured = lane.stats.acceptance_by_position
    rates = [alpha if at >= len(measured) or measured[at] is None else measured[at] for at in gammas]

    def speedup(tokens: float, gamma: int) -> float:
        return predicted_speedup(tokens, gamma, lane.costs.c, lane.costs.v[gamma])

    return Prediction(
        tuple(speedup(expected_tokens(rates[:gamma]), gamma) for gamma in gammas),
        tuple(speedup(expected_tokens_iid(alpha, gamma), gamma) for gamma in gammas),
    )


def drafts_a_round(lane: Lane) -> float:
    """The gamma that was asked for; with auto, the mean of what was drafted."""
    if lane.settings.gamma != "auto":
        return lane.settings.gamma
    return lane.stats.drafted / lane.stats.rounds if lane.stats.rounds else 0.0


def tokens_a_round(lane: Lane) -> list[int]:
    """Tokens that each round added to the answer, without the one that prefill yields."""
    return [len(rnd.emitted) for rnd in lane.rounds if rnd.index > 0 and rnd.tokens]


def values(comparison: Comparison) -> dict[str, Any]:
    """The measurements as JSON values."""
    lanes = []
    for lane in comparison.lanes:
        prediction = predict(lane)
        parting = None if lane is comparison.plain else comparison.divergence(lane)
        lanes.append(
            {
                "name": lane.name,
                "text": lane.text,
                "token_ids": emitted_ids(lane.rounds),
                "finish_reason": lane.rounds[-1].finish_reason,
                "stats": lane.rounds[-1].to_dict()["stats"],
                "seconds": lane.decoding_s,
                "speedup": comparison.speedup(lane),
                "same_text": None if lane is comparison.plain else parting is None,
                "first_divergence": None if parting is None else parting.position,
                "predicted_speedup_by_gamma": list(prediction.by_position) if prediction else None,
            }
        )
    return {
        "gamma": comparison.lanes[-1].settings.gamma,
        "seed": comparison.plain.settings.seed,
        "verification": comparison.plain.settings.verification,
        "lanes": lanes,
    }
