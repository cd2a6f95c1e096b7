"""Lanes: ways of decoding that answer the same prompts in rotating order, compared answer by answer.

Every repetition runs each lane once on the same prompt, so that slow moments of the machine meet all of them.
Ratios are medians of paired ratios, never ratios of medians.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..engine import Engine
from ..ratio import Ratio, median_ratio
from ..settings import Drafting, Settings
from ..text.prompting import Prompt
from ..trace import Round, Stats

Answer = Callable[[Prompt, int], "Sample"]
"""Function from a prompt and a seed to a measured answer."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer of one lane, with its number of `tokens`.

    `answer_s` is the whole time in seconds, prefill included. A peer keeps no trace: its `stats` are None,
    and `decoded` are tokens and seconds without the prefill, if it counts them itself.
    """

    tokens: int
    answer_s: float
    stats: Stats | None = None
    rounds: Sequence[Round] = ()
    cache_bytes: int = 0
    decoded: tuple[int, float] | None = None

    @property
    def decode_rate(self) -> float | None:
        """Tokens per second of decoding, prefill excluded; None for a peer that does not time it."""
        if self.stats is not None:
            return self.stats.tokens_per_second
        return None if self.decoded is None else self.decoded[0] / self.decoded[1]

    @property
    def answer_rate(self) -> float:
        """Tokens per second of the whole answer: peers do not time prefill and decoding separately."""
        return self.tokens / self.answer_s


Rate = Callable[[Sample], float | None]
"""Function from a sample to one of its rates, None where it has none."""


@dataclass(slots=True)
class Lane:
    """One way of decoding, with the samples of all repetitions. `drafting` is None for a peer."""

    name: str
    answer: Answer
    gamma: int | Literal["auto"] = 0
    drafting: Drafting | None = "model"
    samples: list[Sample] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """True for a lane of our engine, False for a peer."""
        return self.drafting is not None

    def median(self, rate: Rate) -> float | None:
        """Return the median of a rate over the samples that have it; None if none does."""
        known = [value for value in map(rate, self.samples) if value is not None]
        return statistics.median(known) if known else None


def paired_ratio(lane: Lane, other: Lane, rate: Rate) -> Ratio | None:
    """Return `lane` ÷ `other`, answer by answer; None if no pair of answers has the rate."""
    pairs = [(rate(a), rate(b)) for a, b in zip(lane.samples, other.samples, strict=True)]
    ratios = [a / b for a, b in pairs if a and b]
    return median_ratio(ratios) if ratios else None


def measure(
    lanes: Sequence[Lane], prompts: Sequence[Prompt], repetitions: int, between: Callable[[], None]
) -> None:
    """Run every lane once per repetition on the same prompt and seed, the first lane rotating, and call
    `between` after each repetition. A first repetition warms up and is not counted.
    """
    for repetition in range(-1, repetitions):
        first = repetition % len(lanes)
        for lane in [*lanes[first:], *lanes[:first]]:
            sample = lane.answer(prompts[repetition % len(prompts)], repetition + 1)
            if repetition >= 0:
                lane.samples.append(sample)
        if repetition >= 0:
            between()


def our_answer(engine: Engine, settings: Settings) -> Answer:
    """Return a lane of our engine, each answer in a session of its own.

    The decode loop's trace times decoding; the whole answer is timed around the call, as a peer's is. Only
    the latter includes the drafter's prefill.
    """

    def answer(prompt: Prompt, seed: int) -> Sample:
        session = engine.session()
        started = time.perf_counter()
        result = engine.generate(prompt, dataclasses.replace(settings, seed=seed), session)
        answer_s = time.perf_counter() - started
        return Sample(len(result.token_ids), answer_s, result.stats, result.rounds, session.size_bytes)

    return answer
