"""The draft length gamma: fixed, or adapted to measured acceptance and costs. Sees no tokens.

The adaptive length maximizes expected tokens per second from what was measured: the acceptance at each
position, the cost of a drafter step, and the cost of a verification by its number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..metrics import expected_tokens
from ..settings import MAX_GAMMA
from ..trace import GammaReason
from .base import Offer

LONGEST_AUTO = 8
_DECAY = 0.98
"""Factor on the counts of tests and acceptances after each round."""
_PRIOR_RATE = 0.7
_PRIOR_TESTS = 3.0
_NEIGHBOUR_TESTS = 6.0
"""Pseudo-count: weight of the previous position's rate as a prior."""
_PROBE_SHARE = 0.01
"""Share of the time that may be lost on probes."""
_PAYBACK_STEPS = 200
"""Plain steps, about an answer's, within which drafting has to earn back the drafter's catching up."""
_OUTLIER = 1.5
"""A step this many times slower or faster than usual was disturbed by other work."""


@dataclass(frozen=True, slots=True)
class GammaChoice:
    """A round's gamma and the reason for it, with the offer to draft from. `gain` is the expected rate over
    the plain one, where known.
    """

    gamma: int
    reason: GammaReason
    gain: float | None = None
    offer: Offer | None = None


class GammaPolicy(Protocol):
    """Chooses the drafter and the draft length of each round."""

    def choose(self, offers: Sequence[Offer]) -> GammaChoice:
        """Return gamma for the next round and one of the offers, which are in the order of preference."""
        ...

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, computed: int | None = None
    ) -> None:
        """Learn from the round of the last choice: drafts that count, drafts accepted, seconds of drafting,
        and of verification.

        The seconds are those of `computed` drafts, if more were computed than count: where an answer ended
        inside the drafts, those after its end do not count.
        """
        ...


@dataclass(frozen=True, slots=True)
class FixedGamma:
    """The same gamma in every round, and the first offer."""

    gamma: int

    def choose(self, offers: Sequence[Offer]) -> GammaChoice:
        """See GammaPolicy.choose."""
        reason = "fixed" if self.gamma else "baseline"
        return GammaChoice(self.gamma, reason, offer=offers[0] if offers else None)

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, computed: int | None = None
    ) -> None:
        """See GammaPolicy.observe. There is nothing to learn."""


@dataclass(slots=True)
class StepCosts:
    """Costs of steps, in one-row target steps: `drafter` is c, `verify` is v by number of rows. Shared by all
    answers of a pair, and refined by each.
    """

    drafter: float
    verify: dict[int, float]
    """Numbers of rows that were not measured are interpolated linearly."""
    catch_up: tuple[float, float] = (0.0, 0.0)
    """Cost of the drafter's prefill of tokens that it lacks: a constant, and a part for each token."""
    first_rate: float = _PRIOR_RATE
    """Prior acceptance at the first position of a new conversation: a moving average over recent rounds."""
    plain_rounds: int = 0
    """Rounds without a draft since the last one with drafts, over all answers."""

    def __post_init__(self) -> None:
        self.verify = {rows: _on_a_line(self.verify, rows) for rows in range(1, MAX_GAMMA + 2)}

    def v(self, rows: int) -> float:
        """The cost of verifying `rows` rows."""
        return self.verify[min(rows, MAX_GAMMA + 1)]

    def catching_up(self, missing: int) -> float:
        """The cost of a prefill of `missing` tokens before a draft; the last two are part of a step."""
        at_all, each = self.catch_up
        return at_all + each * missing if missing > 2 else 0.0


class AdaptiveGamma:
    """The draft length of one drafter for gamma="auto": maximizes the expected tokens per second, 0 among the
    choices.

    While 0 wins, single drafts are probed: the smaller the expected loss, the more often, within a fixed
    share of the time. Counts of acceptance decay meanwhile, so that a successful probe changes the choice.
    """

    def __init__(self, costs: StepCosts, longest: int = LONGEST_AUTO) -> None:
        self.costs = costs
        self._tested = [0.0] * longest
        self._accepted = [0.0] * longest
        self._tested[0], self._accepted[0] = _PRIOR_TESTS, _PRIOR_TESTS * costs.first_rate
        self._one_row_s: float | None = None

    def choose(self, missing: int, beside: float = 1.0) -> GammaChoice:
        """Return gamma for a drafter that lacks `missing` tokens, 0 if a round without its drafts is faster:
        one at `beside` times the plain rate.
        """
        rates = self._expected_rates()
        best = max(rates, key=lambda gamma: rates[gamma])
        gain = rates[best] / rates[0]
        catching_up = self.costs.catching_up(missing)
        if best > 0 and gain > beside + catching_up / _PAYBACK_STEPS:
            return GammaChoice(best, "auto", gain)
        lost = (self.costs.drafter + self.costs.v(2)) * max(0.0, 1 - rates[1] / rates[0] / beside)
        if self.costs.plain_rounds * _PROBE_SHARE >= lost + catching_up:
            return GammaChoice(1, "probe")
        return GammaChoice(0, "unprofitable")

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, computed: int | None = None
    ) -> None:
        """Learn from a round with this drafter's drafts, or without any. See GammaPolicy.observe."""
        if not drafted:
            self.stand_by(1, verify_s, declined=True)
            return
        self._learn_costs(drafted if computed is None else computed, draft_s, verify_s)
        self.costs.plain_rounds = 0
        self.costs.first_rate = _mix(self.costs.first_rate, float(accepted > 0), 0.05)
        for at in range(min(drafted, accepted + 1, len(self._tested))):
            self._tested[at] = self._tested[at] * _DECAY + 1
            self._accepted[at] = self._accepted[at] * _DECAY + (at < accepted)

    def stand_by(self, rows: int, verify_s: float, declined: bool) -> None:
        """Learn from a round without this drafter's drafts, which verified `rows` rows in `verify_s` seconds.
        `declined`: it could have drafted, and was not expected to pay.
        """
        self._learn_pace(rows, verify_s)
        self.costs.plain_rounds += 1
        if declined:
            self._tested = [tested * _DECAY for tested in self._tested]
            self._accepted = [accepted * _DECAY for accepted in self._accepted]

    def _learn_pace(self, rows: int, verify_s: float) -> bool:
        """Update the time of one row in this answer. Returns False if other work disturbed the round."""
        one_row_s = verify_s / self.costs.v(rows)
        usual_s = self._one_row_s or one_row_s
        self._one_row_s = _mix(usual_s, min(max(one_row_s, usual_s / _OUTLIER), usual_s * _OUTLIER), 0.3)
        return usual_s / _OUTLIER < one_row_s < usual_s * _OUTLIER

    def _learn_costs(self, drafted: int, draft_s: float, verify_s: float) -> None:
        """Update c and v relative to the time of one row in this answer, so that a slower machine or a longer
        context, which slow all steps alike, change nothing.
        """
        costs = self.costs
        v = costs.v(drafted + 1)
        if not self._learn_pace(drafted + 1, verify_s) or self._one_row_s is None:
            return
        costs.verify[drafted + 1] = max(1.0, _mix(v, verify_s / self._one_row_s, 0.03))
        step = draft_s / drafted / self._one_row_s
        costs.drafter = _mix(costs.drafter, min(step, 2 * max(costs.drafter, 0.01)), 0.1)

    def acceptance(self) -> list[float]:
        """Expected acceptance at each position; the rate of the position before is the prior of the next."""
        rates = [self._accepted[0] / self._tested[0]]
        for tested, accepted in zip(self._tested[1:], self._accepted[1:], strict=True):
            rates.append((accepted + _NEIGHBOUR_TESTS * rates[-1]) / (tested + _NEIGHBOUR_TESTS))
        return rates

    def _expected_rates(self) -> Mapping[int, float]:
        """Expected tokens per plain step's time, by gamma."""
        acceptance = self.acceptance()
        return {
            gamma: expected_tokens(acceptance[:gamma])
            / (gamma * self.costs.drafter + self.costs.v(gamma + 1))
            for gamma in range(len(acceptance) + 1)
        }


def _mix(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)


def _on_a_line(known: Mapping[int, float], at: int) -> float:
    below = max((n for n in known if n <= at), default=min(known))
    above = min((n for n in known if n >= at), default=max(known))
    if below == above:
        return known[below]
    return known[below] + (at - below) / (above - below) * (known[above] - known[below])
