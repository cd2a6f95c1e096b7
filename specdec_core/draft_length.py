"""How many drafts a round asks for. Sees counts and times, never tokens.

The adaptive policy maximizes expected tokens per second from what was measured: the acceptance at each
position, the cost of a drafter step, and the cost of a verification by its number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .metrics import expected_tokens

LONGEST_AUTO = 8
_MEMORY = 0.98
"""Share of an old count that is left after another round."""
_FIRST_RATE = 0.7
_FIRST_TESTS = 4.0
_LEAN = 6.0
"""How many tests the rate at the position before counts for."""
_PROBE_SHARE = 0.01
"""Share of the time that may be lost to finding out whether drafting pays again."""
_RETURN_WITHIN = 20
"""Rounds in which drafting has to earn back what the drafter's catching up costs."""
_CAUGHT_UP_S = 0.05
"""In one-row target steps; what takes less is no catching up, but asking whether there is any."""


@dataclass(frozen=True, slots=True)
class FixedGamma:
    """The same gamma in every round."""

    gamma: int

    def choose(self) -> tuple[int, str]:
        """Gamma for the next round, and why."""
        return self.gamma, "fixed" if self.gamma else "baseline"

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, catch_up_s: float
    ) -> None:
        """Takes note of a round: drafts proposed, drafts that stood, seconds. Here it changes nothing."""


@dataclass(slots=True)
class StepCosts:
    """What steps cost, in one-row target steps: `drafter` is c, `verify` is v by number of rows. Shared by
    all answers of a pair.

    Only costs relative to each other decide, so they are measured against each other: a machine that slows
    down slows all of them.
    """

    drafter: float
    verify: dict[int, float]
    first_rate: float = _FIRST_RATE
    """The acceptance that a new conversation expects: what the last few dozen rounds had at the first."""
    catch_up: float = 0.5
    """What the drafter's first draft costs more after a stretch of plain rounds, whose tokens it missed."""
    plain_rounds: int = 0
    """Since the last draft, whichever answer had it."""
    _one_row_s: float | None = None

    def v(self, rows: int) -> float:
        """The cost of verifying `rows` rows; where never measured, on a line through its neighbours."""
        if rows in self.verify:
            return self.verify[rows]
        below = max((r for r in self.verify if r < rows), default=min(self.verify))
        above = min((r for r in self.verify if r > rows), default=max(self.verify))
        if below == above:
            return self.verify[below]
        share = (rows - below) / (above - below)
        return self.verify[below] + share * (self.verify[above] - self.verify[below])

    def observe(self, drafted: int, draft_s: float, verify_s: float, catch_up_s: float = 0.0) -> None:
        v = self.v(drafted + 1)
        self._one_row_s = _mix(self._one_row_s, verify_s / v, 0.3)
        if not drafted:
            self.plain_rounds += 1
            return
        self.plain_rounds = 0
        measured = verify_s / self._one_row_s
        self.verify[drafted + 1] = _mix(v, min(max(measured, 0.8 * v), 1.25 * v), 0.05)
        # A step that was held up (by another program, or by two tokens at once) says nothing of its cost.
        if (cost := draft_s / drafted / verify_s * v) < 3 * max(self.drafter, 0.01):
            self.drafter = _mix(self.drafter, cost, 0.1)
        if (catch_up := catch_up_s / verify_s * v) > _CAUGHT_UP_S:
            self.catch_up = _mix(self.catch_up, min(catch_up, 3 * self.catch_up), 0.3)


class AdaptiveGamma:
    """gamma="auto": the gamma with the most expected tokens per second, 0 among the choices.

    Where 0 wins, a single draft is probed now and then: the less it is expected to lose, the more often. What
    was learnt of the drafts fades in between, so that a probe that succeeds counts.
    """

    def __init__(self, costs: StepCosts, longest: int = LONGEST_AUTO) -> None:
        self._costs = costs
        self._tested = [0.0] * longest
        self._accepted = [0.0] * longest
        # A first guess that fades as rounds are observed.
        self._tested[0], self._accepted[0] = _FIRST_TESTS, _FIRST_TESTS * costs.first_rate
        self._missed = 0

    def choose(self) -> tuple[int, str]:
        rates = self._expected_rates()
        best = max(rates, key=rates.get)
        gain = rates[best] / rates[0]
        catch_up = self._costs.catch_up if self._missed > 1 else 0.0
        if best > 0 and gain > 1 + catch_up / _RETURN_WITHIN:
            return best, f"auto: {gain:.2f}× the plain rate is expected"
        lost = (self._costs.drafter + self._costs.v(2)) * max(0.0, 1 - rates[1] / rates[0])
        if self._costs.plain_rounds * _PROBE_SHARE >= lost + catch_up:
            return 1, "auto: a probe, whether drafting pays again"
        return 0, "auto: no draft is expected to pay"

    def observe(
        self, drafted: int, accepted: int, draft_s: float, verify_s: float, catch_up_s: float
    ) -> None:
        self._costs.observe(drafted, draft_s, verify_s, catch_up_s)
        self._missed = 0 if drafted else self._missed + 1
        if drafted:
            self._costs.first_rate = _mix(self._costs.first_rate, float(accepted > 0), 0.05)
        for at in range(len(self._tested)):
            tested = at < min(drafted, accepted + 1)
            if tested or not drafted:
                self._tested[at] = self._tested[at] * _MEMORY + tested
                self._accepted[at] = self._accepted[at] * _MEMORY + (tested and at < accepted)

    def acceptance(self) -> list[float]:
        """The rate expected at each position: what was measured there, leaning on the position before
        where that is little.
        """
        rates = [self._accepted[0] / self._tested[0]]
        for tested, accepted in zip(self._tested[1:], self._accepted[1:], strict=True):
            rates.append((accepted + _LEAN * rates[-1]) / (tested + _LEAN))
        return rates

    def _expected_rates(self) -> Mapping[int, float]:
        """Tokens in the time of one plain step, for each gamma."""
        acceptance = self.acceptance()
        return {
            gamma: expected_tokens(acceptance[:gamma])
            / (gamma * self._costs.drafter + self._costs.v(gamma + 1))
            for gamma in range(len(acceptance) + 1)
        }


def _mix(old: float | None, new: float, weight: float) -> float:
    return new if old is None else old + weight * (new - old)
