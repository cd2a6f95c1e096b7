"""Figures of rounds: acceptance rate, block efficiency, predicted speedup.

Arithmetic over the trace; knows nothing of how rounds are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul

from .trace import TESTED_KINDS, Round, Stats, counted_rounds


def summarize(
    rounds: Iterable[Round],
    *,
    time_to_first_token_s: float,
    prompt_tokens: int,
    cached_prompt_tokens: int = 0,
    dropped_messages: int = 0,
    seed: int | None = None,
    same_rows: bool | None = None,
    thought_tokens: int = 0,
) -> Stats:
    """Return the figures of an answer; its rates are those of its `counted_rounds`. `same_rows` is the
    target's.
    """
    rounds = list(rounds)
    counted = counted_rounds(rounds)
    drafted = sum(len(rnd.drafted) for rnd in counted)
    tested = sum(token.kind in TESTED_KINDS for rnd in counted for token in rnd.tokens)
    accepted = sum(token.kind == "accepted" for rnd in counted for token in rnd.tokens)
    emitted = sum(len(rnd.emitted) for rnd in counted)
    seconds = sum(rnd.seconds for rnd in counted)
    return Stats(
        rounds=len(counted),
        drafted=drafted,
        tested=tested,
        accepted=accepted,
        acceptance_rate=_ratio(accepted, tested),
        accepted_per_drafted=_ratio(accepted, drafted),
        block_efficiency=_ratio(emitted, len(counted)),
        acceptance_by_position=acceptance_by_position(counted),
        tokens_per_second=_ratio(emitted, seconds),
        time_to_first_token_s=time_to_first_token_s,
        draft_s=sum(rnd.draft_s for rnd in counted),
        verify_s=sum(rnd.verify_s for rnd in counted),
        overhead_s=sum(rnd.overhead_s for rnd in counted),
        new_tokens=sum(len(rnd.emitted) for rnd in rounds),
        prompt_tokens=prompt_tokens,
        cached_prompt_tokens=cached_prompt_tokens,
        dropped_messages=dropped_messages,
        seed=seed,
        same_rows=_tokens_of_same_rows(rounds, same_rows),
        thought_tokens=thought_tokens,
    )


def _tokens_of_same_rows(rounds: Iterable[Round], same_rows: bool | None) -> int | None:
    """All tokens where rows do not depend on those beside them, else those of rounds without a draft."""
    if same_rows is None:
        return None
    return sum(len(rnd.emitted) for rnd in rounds if same_rows or not rnd.drafted)


def acceptance_by_position(rounds: Iterable[Round]) -> list[float | None]:
    """Return accepted ÷ tested for each draft position, None where no draft was tested."""
    tested: list[int] = []
    accepted: list[int] = []
    for rnd in rounds:
        for at, token in enumerate(rnd.drafted):
            if at == len(tested):
                tested.append(0)
                accepted.append(0)
            tested[at] += token.kind in TESTED_KINDS
            accepted[at] += token.kind == "accepted"
    return [_ratio(a, t) for a, t in zip(accepted, tested, strict=True)]


def expected_tokens(acceptance: Sequence[float]) -> float:
    """Return the expected tokens of a round, 1 + Σ_j Π_{i≤j} a_i, for the acceptance a_i at each position."""
    return 1 + sum(accumulate(acceptance, mul))


def expected_tokens_iid(alpha: float, gamma: int) -> float:
    """Return the expected tokens of a round with one alpha for all positions: (1 − α^(γ+1)) / (1 − α), or
    γ + 1 at α = 1 (Leviathan et al. 2023, equation 1).
    """
    return expected_tokens([alpha] * gamma)


def predicted_speedup(tokens_a_round: float, gamma: int, c: float, v: float) -> float:
    """Return tau ÷ (γc + v), where c is a drafter step and v a verification of gamma + 1 rows, both in
    one-row target steps (Leviathan et al. 2023, theorem 3.8, with v = 1 there).
    """
    return tokens_a_round / (gamma * c + v)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predicted speedups over the baseline, by gamma: 0, 1, 2, …

    `by_position` takes the acceptance measured at each position (beyond the measured ones the overall rate),
    `one_alpha` the overall rate everywhere.
    """

    by_position: tuple[float, ...]
    one_alpha: tuple[float, ...]

    @property
    def best(self) -> int:
        """The gamma with the largest prediction."""
        return max(range(len(self.by_position)), key=self.by_position.__getitem__)


def predict(
    alpha: float, acceptance_by_position: Sequence[float | None], c: float, v: Sequence[float]
) -> Prediction:
    """Predict the speedup for each gamma for which `v` has a cost (`v[gamma]`, of gamma + 1 rows).

    `alpha` and `acceptance_by_position` are an answer's, `c` and `v` in one-row target steps.
    """
    gammas = range(len(v))
    known = dict(enumerate(acceptance_by_position))
    rates = [alpha if (rate := known.get(at)) is None else rate for at in gammas]
    return Prediction(
        tuple(predicted_speedup(expected_tokens(rates[:g]), g, c, v[g]) for g in gammas),
        tuple(predicted_speedup(expected_tokens_iid(alpha, g), g, c, v[g]) for g in gammas),
    )


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None
