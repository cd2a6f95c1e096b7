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
_FIRST_TESTS = 2.0
_LEAN = 3.0
"""How many tests the rate at the position before counts for."""
_PROBE_GAMMA = 2
_PROBE_SHARE = 0.015
"""Share of the time that may be lost to finding out whether drafting pays again."""


@dataclass(frozen=True, slots=True)
class FixedGamma:
    """The same gamma in every round."""

    gamma: int

    def choose(self) -> tuple[int, str]:
        """Gamma for the next round, and why."""
        return self.gamma, "fixed" if self.gamma else "baseline"

    def observe(self, drafted: int, accepted: int, draft_s: float, verify_s: float) -> None:
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

    def observe(self, drafted: int, draft_s: float, verify_s: float) -> None:
        v = self.v(drafted + 1)
        self._one_row_s = _mix(self._one_row_s, verify_s / v, 0.3)
        if drafted:
            measured = verify_s / self._one_row_s
            self.verify[drafted + 1] = _mix(v, min(max(measured, 0.8 * v), 1.25 * v), 0.02)
            # A drafter that had tokens to catch up on says nothing of the cost of a step.
            if (cost := draft_s / drafted / verify_s * v) < 3 * max(self.drafter, 0.01):
                self.drafter = _mix(self.drafter, cost, 0.1)


class AdaptiveGamma:
    """gamma="auto": the gamma with the most expected tokens per second, 0 among the choices.

    Where 0 wins, a short draft is probed now and then: the less it is expected to lose, the more often.
    """

    def __init__(self, costs: StepCosts, longest: int = LONGEST_AUTO) -> None:
        self._costs = costs
        self._tested = [0.0] * longest
        self._accepted = [0.0] * longest
        # A first guess that fades as rounds are observed.
        self._tested[0], self._accepted[0] = _FIRST_TESTS, _FIRST_TESTS * costs.first_rate
        self._plain_rounds = 0

    def choose(self) -> tuple[int, str]:
        rates = self._expected_rates()
        best = max(rates, key=rates.get)
        if best > 0:
            self._plain_rounds = 0
            gain = rates[best] / rates[0]
            return best, f"auto: {gain:.2f}× the plain rate is expected"
        self._plain_rounds += 1
        probe_steps = _PROBE_GAMMA * self._costs.drafter + self._costs.v(_PROBE_GAMMA + 1)
        lost = probe_steps * (1 - rates[_PROBE_GAMMA] / rates[0])
        if self._plain_rounds * _PROBE_SHARE >= lost:
            self._plain_rounds = 0
            return _PROBE_GAMMA, "auto: a probe, whether drafting pays again"
        return 0, "auto: no draft is expected to pay"

    def observe(self, drafted: int, accepted: int, draft_s: float, verify_s: float) -> None:
        self._costs.observe(drafted, draft_s, verify_s)
        if drafted:
            self._costs.first_rate = _mix(self._costs.first_rate, float(accepted > 0), 0.05)
        for at in range(min(drafted, accepted + 1, len(self._tested))):
            self._tested[at] = self._tested[at] * _MEMORY + 1
            self._accepted[at] = self._accepted[at] * _MEMORY + (at < accepted)

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
