"""The measurements of one prompt's lanes as plain data, and the figures that follow from them.

Knows the trace and the metrics; nothing of engines, components or how results are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import specdec_core as sd

from .speedup import interval_of

TITLES = {
    "plain": "Plain decoding",
    "model": "Speculative decoding",
    "ngram": "N-gram drafting",
    "both": "Both drafters",
    "generate": "transformers' generate",
    "assisted": "transformers' assisted generation",
    "llama_cpp": "llama.cpp",
}
"""Titles of the lanes by name."""
PEERS: tuple[sd.Peer, ...] = get_args(sd.Peer)
"""Lanes of other code, of which only the tokens and their times are known."""
EQUAL = 0.02
"""Speedups this close to 1 are called equal."""

Outcome = Literal["faster", "slower", "equal", "unknown"]


@dataclass(frozen=True)
class Costs:
    """Measured step costs in one-row target steps: a drafter step, and a verification by its gamma."""

    c: float
    v: tuple[float, ...]


@dataclass(frozen=True)
class LaneAnswer:
    """One answer of one lane. `name` is a key of TITLES; `costs` is None but for the lane `model`."""

    name: str
    settings: sd.Settings
    rounds: list[sd.Round]
    costs: Costs | None = None

    @property
    def title(self) -> str:
        """The lane's title."""
        return TITLES[self.name]

    @property
    def is_peer(self) -> bool:
        """True for a lane of other code."""
        return self.name in PEERS

    @property
    def stats(self) -> sd.Stats:
        """The figures of the answer. Raises ValueError for an answer without its last round."""
        stats = self.rounds[-1].stats if self.rounds else None
        if stats is None:
            raise ValueError(f"The answer of the lane {self.name} has no last round, so it has no stats.")
        return stats

    @property
    def text(self) -> str:
        """The text of the answer."""
        return "".join(rnd.text for rnd in self.rounds)

    @property
    def emitted(self) -> list[sd.Token]:
        """The tokens of the answer, in order."""
        return [token for rnd in self.rounds for token in rnd.emitted]

    @property
    def decoding_s(self) -> float:
        """Seconds of all rounds but round 0, the prefill."""
        return sum(rnd.seconds for rnd in self.rounds if rnd.index > 0)

    @property
    def tokens_by_round(self) -> list[int]:
        """Number of tokens that each counted round added to the answer."""
        return [len(rnd.emitted) for rnd in sd.counted_rounds(self.rounds)]

    @property
    def mean_gamma(self) -> float:
        """The gamma of the settings; with "auto", the mean number of drafts in a round."""
        if self.settings.gamma != "auto":
            return self.settings.gamma
        return self.stats.drafted / self.stats.rounds if self.stats.rounds else 0.0

    @property
    def prediction(self) -> sd.Prediction | None:
        """The speedup predicted for each gamma; None for a lane without costs, or without a tested draft.

        The lanes `ngram` and `both` have none: the formula assumes drafts of one kind in every round.
        """
        alpha = self.stats.acceptance_rate
        if alpha is None or self.costs is None:
            return None
        return sd.predict(alpha, self.stats.acceptance_by_position, self.costs.c, self.costs.v)


@dataclass(frozen=True)
class Comparison:
    """Lanes of one prompt under the same settings, the baseline first.

    `speedups` are over the baseline, by lane. `alternated` says that our own lanes decoded in turns.
    `disturbed` says that other answers were made meanwhile, so that times may be too long. `margins` has a
    value for each lane that should have the baseline's text and does not: the distance between the two best
    scores at the first difference, None if it could not be computed. `left_out` has a sentence for each lane
    that is missing.
    """

    prompt: str
    lanes: tuple[LaneAnswer, ...]
    info: sd.EngineInfo | None = None
    speedups: Mapping[str, sd.Ratio] = field(default_factory=dict)
    alternated: bool = False
    disturbed: bool = False
    margins: Mapping[str, float | None] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def baseline(self) -> LaneAnswer:
        """The lane of plain decoding."""
        return self.lanes[0]

    @property
    def other_lanes(self) -> tuple[LaneAnswer, ...]:
        """All lanes but the baseline."""
        return self.lanes[1:]

    @property
    def drafting_lanes(self) -> tuple[LaneAnswer, ...]:
        """The engine's own lanes but the baseline."""
        return tuple(lane for lane in self.other_lanes if not lane.is_peer)

    def speedup(self, lane: LaneAnswer) -> float | None:
        """Return the lane's measured tokens per second of decoding ÷ the baseline's: the median of pairs, or
        that of the answers if there is no pair.
        """
        if lane.name in self.speedups:
            return self.speedups[lane.name].median
        rate, baseline_rate = lane.stats.tokens_per_second, self.baseline.stats.tokens_per_second
        return rate / baseline_rate if rate and baseline_rate else None

    def interval(self, lane: LaneAnswer) -> sd.Ratio | None:
        """Return the speedup with its 95 % confidence interval; None if too few pairs were measured."""
        return interval_of(self.speedups.get(lane.name))

    def outcome(self, lane: LaneAnswer) -> Outcome:
        """Return the speedup in a word: "equal" if it is close to 1, or its interval has 1 in it."""
        speedup, interval = self.speedup(lane), self.interval(lane)
        if speedup is None:
            return "unknown"
        low, high = (interval.low, interval.high) if interval else (speedup, speedup)
        if speedup > 1 + EQUAL and low > 1:
            return "faster"
        return "slower" if speedup < 1 - EQUAL and high < 1 else "equal"

    def rate(self, lane: LaneAnswer) -> float | None:
        """Return the tokens per second that the lane would have had at the baseline's load."""
        baseline_rate, speedup = self.baseline.stats.tokens_per_second, self.speedup(lane)
        if lane is self.baseline or baseline_rate is None or speedup is None:
            return lane.stats.tokens_per_second
        return baseline_rate * speedup

    def round_cost(self, lane: LaneAnswer) -> float | None:
        """Return the time of one round of the lane, in steps of the baseline."""
        speedup, tau = self.speedup(lane), lane.stats.block_efficiency
        return tau / speedup if speedup and tau is not None else None

    def same_text_promised(self, lane: LaneAnswer) -> bool:
        """Return True if the settings guarantee the baseline's tokens in that lane, up to rounding. llama.cpp
        has the weights of its own file.
        """
        settings = lane.settings
        if lane.name == "llama_cpp":
            return False
        return settings.temperature == 0 or (settings.verification == "coupled" and not lane.is_peer)

    def divergence(self, lane: LaneAnswer) -> int | None:
        """Return the index of the first token that differs from the baseline's; None if all are the same."""
        return sd.first_difference(sd.emitted_ids(self.baseline.rounds), sd.emitted_ids(lane.rounds))


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Return the measurements as values for `sd.to_json`."""
    return {
        "alternated": comparison.alternated,
        "gamma": comparison.lanes[-1].settings.gamma,
        "left_out": list(comparison.left_out),
        "seed": comparison.baseline.settings.seed,
        "verification": comparison.baseline.settings.verification,
        "lanes": [_lane_json(comparison, lane) for lane in comparison.lanes],
    }


def _lane_json(comparison: Comparison, lane: LaneAnswer) -> dict[str, Any]:
    is_baseline = lane is comparison.baseline
    divergence = None if is_baseline else comparison.divergence(lane)
    interval = comparison.interval(lane)
    return {
        "name": lane.name,
        "text": lane.text,
        "thought": "".join(rnd.thought for rnd in lane.rounds),
        "token_ids": sd.emitted_ids(lane.rounds),
        "finish_reason": lane.rounds[-1].finish_reason,
        "stats": _stats_json(lane),
        "seconds": lane.decoding_s,
        "speedup": comparison.speedup(lane),
        "speedup_low": interval.low if interval else None,
        "speedup_high": interval.high if interval else None,
        "pairs": interval.pairs if interval else None,
        "same_text": None if is_baseline else divergence is None,
        "first_divergence": divergence,
        "margin": comparison.margins.get(lane.name),
        "predicted_speedup_by_gamma": list(lane.prediction.by_position) if lane.prediction else None,
    }


def _stats_json(lane: LaneAnswer) -> dict[str, Any]:
    """The figures of an answer; for a peer only those that can be measured from outside."""
    stats = lane.rounds[-1].to_dict()["stats"]
    if lane.is_peer:
        measured = (
            "tokens_per_second",
            "time_to_first_token_s",
            "new_tokens",
            "prompt_tokens",
            "thought_tokens",
        )
        stats = {name: stats[name] if name in measured else None for name in stats}
    return stats
