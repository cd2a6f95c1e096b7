"""What a comparison of one prompt measured, lane by lane, as plain data, and what follows from it.

Knows the trace and the metrics; nothing of engines, components or how results are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import specdec_core as sd
from specdec_core.metrics import expected_tokens, expected_tokens_iid, predicted_speedup
from specdec_core.trace import Round, Stats, Token, emitted_ids

TITLES = {
    "plain": "Plain decoding",
    "model": "Speculative decoding",
    "ngram": "N-gram drafting",
    "generate": "transformers' generate",
    "assisted": "transformers' assisted generation",
}
PEERS = ("generate", "assisted")
"""Lanes of transformers' own code, of which only the tokens and their times are known."""


@dataclass(frozen=True)
class Costs:
    """What steps cost, in one-row target steps: a drafter step, and a verification by its gamma."""

    c: float
    v: tuple[float, ...]


@dataclass(frozen=True)
class Lane:
    """One answer. `name` is one of TITLES; `costs` is there where our own drafter drafted."""

    name: str
    settings: sd.Settings
    rounds: list[Round]
    costs: Costs | None = None

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def is_peer(self) -> bool:
        return self.name in PEERS

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
    live: bool = False
    """Its lanes took turns round by round, so that each met what the other left in the caches."""
    margins: Mapping[str, float | None] = field(default_factory=dict)
    """By lane that should have the baseline's text and has not: how far apart the two best scores were where
    it parts; None where that could not be looked at."""
    left_out: tuple[str, ...] = ()
    """Why lanes that were asked for are missing, a sentence each."""

    @property
    def plain(self) -> Lane:
        return self.lanes[0]

    @property
    def others(self) -> tuple[Lane, ...]:
        """All lanes but the baseline."""
        return self.lanes[1:]

    @property
    def drafted(self) -> tuple[Lane, ...]:
        """Our own lanes that drafted."""
        return tuple(lane for lane in self.others if not lane.is_peer)

    def speedup(self, lane: Lane) -> float | None:
        """Measured: the lane's tokens per second of decoding ÷ the baseline's."""
        own, plain = lane.stats.tokens_per_second, self.plain.stats.tokens_per_second
        return own / plain if own and plain else None

    def plain_steps(self, lane: Lane) -> float | None:
        """How many steps of the baseline one round of the lane took the time of."""
        speedup = self.speedup(lane)
        return lane.stats.block_efficiency / speedup if speedup else None

    def same_text_promised(self, lane: Lane) -> bool:
        """Whether these settings promise the baseline's tokens in that lane, up to rounding."""
        settings = lane.settings
        return settings.temperature == 0 or (settings.verification == "coupled" and not lane.is_peer)

    def divergence(self, lane: Lane) -> Divergence | None:
        """The first token that differs from the baseline's; None where all are the same."""
        for at, (plain, other) in enumerate(zip_longest(self.plain.emitted, lane.emitted)):
            if plain is None or other is None or plain.id != other.id:
                return Divergence(at, plain, other)
        return None


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
                "stats": _stats(lane),
                "seconds": lane.decoding_s,
                "speedup": comparison.speedup(lane),
                "same_text": None if lane is comparison.plain else parting is None,
                "first_divergence": None if parting is None else parting.position,
                "margin": comparison.margins.get(lane.name),
                "predicted_speedup_by_gamma": list(prediction.by_position) if prediction else None,
            }
        )
    return {
        "gamma": comparison.lanes[-1].settings.gamma,
        "left_out": list(comparison.left_out),
        "seed": comparison.plain.settings.seed,
        "verification": comparison.plain.settings.verification,
        "lanes": lanes,
    }


def _stats(lane: Lane) -> dict[str, Any]:
    """The figures of an answer; of a peer's only those that can be seen from outside."""
    stats = lane.rounds[-1].to_dict()["stats"]
    if lane.is_peer:
        known = ("tokens_per_second", "time_to_first_token_s", "new_tokens", "prompt_tokens")
        stats = {name: stats[name] if name in known else None for name in stats}
    return stats
