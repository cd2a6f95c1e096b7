"""How many drafts a round asks for. Sees counts and times, never tokens.

The adaptive policy maximizes expected tokens per second from what was measured: the acceptance at each
position, the cost of a drafter step, and the cost of a verification by its number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..metrics import expected_tokens
from ..settings import MAX_GAMMA

LONGEST_AUTO = 8
_MEMORY = 0.98
"""Share of an old count that is left after another round."""
_FIRST_RATE = 0.7
_FIRST_TESTS = 3.0
_LEAN = 6.0
"""How many tests the rate at the position before counts for."""
_PROBE_SHARE = 0.01
"""Share of the time that may be lost to finding out whether drafting pays again."""
_EARNED_WITHIN = 200
"""Plain steps' time in which drafting has to earn back what the drafter's catching up costs: an answer's."""
_UNUSUAL = 1.5
"""A step that takes this many times the usual one was held up by something else."""


@dataclass(frozen=True, slots=True)
class FixedGamma:
    """The same gamma in every round."""

    gamma: int

    def choose(self, missing: int) -> tuple[int, str]:
        """Gamma for the next round, and why."""
        return self.gamma, "fixed" if self.gamma else "baseline"

    def observe(self, drafted: int, accepted: int, draft_s: float, verify_s: float) -> None:
        """Takes note of a round: drafts proposed, drafts that stood, seconds. Here it changes nothing."""


@dataclass(slots=True)
class StepCosts:
    """What steps cost, in one-row target steps: `drafter` is c, `verify` is v by number of rows. Shared by
    all answers of a pair.
    """

    drafter: float
    verify: dict[int, float]
    """Where a number of rows was not measured, its cost lies on a line through its neighbours."""
    catch_up: tuple[float, float] = (0.0, 0.0)
    """What taking in tokens that it missed costs the drafter: at all, and for each."""
    first_rate: float = _FIRST_RATE
    """The acceptance that a new conversation expects: what the last few dozen rounds had at the first."""
    plain_rounds: int = 0
    """Since the last draft, whichever answer had it."""

    def __post_init__(self) -> None:
        self.verify = {rows: _on_a_line(self.verify, rows) for rows in range(1, MAX_GAMMA + 2)}

    def v(self, rows: int) -> float:
        """The cost of verifying `rows` rows."""
        return self.verify[min(rows, MAX_GAMMA + 1)]

    def catching_up(self, missing: int) -> float:
        """The cost of taking in `missing` tokens before a draft; the last two are part of a step."""
        at_all, each = self.catch_up
        return at_all + each * missing if missing > 2 else 0.0


class AdaptiveGamma:
    """gamma="auto": the gamma with the most expected tokens per second, 0 among the choices.

    Where 0 wins, a single draft is probed now and then: the less it is expected to lose, the more often, and
    never where catching up with a plain token costs more than may be lost on it. What was learnt of the
    drafts fades in between, so that a probe that succeeds counts.
    """

    def __init__(self, costs: StepCosts, longest: int = LONGEST_AUTO) -> None:
        self._costs = costs
        self._tested = [0.0] * longest
        self._accepted = [0.0] * longest
        # A first guess that fades as rounds are observed.
        self._tested[0], self._accepted[0] = _FIRST_TESTS, _FIRST_TESTS * costs.first_rate
        self._one_row_s: float | None = None

    def choose(self, missing: int) -> tuple[int, str]:
        rates = self._expected_rates()
        best = max(rates, key=rates.get)
        gain = rates[best] / rates[0]
        catching_up = self._costs.catching_up(missing)
        if best > 0 and gain > 1 + catching_up / _EARNED_WITHIN:
            return best, f"auto: {gain:.2f}× the plain rate is expected"
        lost = (self._costs.drafter + self._costs.v(2)) * max(0.0, 1 - rates[1] / rates[0])
        if self._costs.plain_rounds * _PROBE_SHARE >= lost + catching_up:
            return 1, "auto: a probe, whether drafting pays again"
        return 0, "auto: no draft is expected to pay"

    def observe(self, drafted: int, accepted: int, draft_s: float, verify_s: float) -> None:
        self._learn_costs(drafted, draft_s, verify_s)
        self._costs.plain_rounds = 0 if drafted else self._costs.plain_rounds + 1
        if drafted:
            self._costs.first_rate = _mix(self._costs.first_rate, float(accepted > 0), 0.05)
        for at in range(len(self._tested)):
            tested = at < min(drafted, accepted + 1)
            if tested or not drafted:
                self._tested[at] = self._tested[at] * _MEMORY + tested
                self._accepted[at] = self._accepted[at] * _MEMORY + (tested and at < accepted)

    def _learn_costs(self, drafted: int, draft_s: float, verify_s: float) -> None:
        """Only costs relative to each other decide, so they are measured against what a row takes in this
        answer: a machine that slows down, or a longer context, slows all of them.
        """
        costs = self._costs
        v = costs.v(drafted + 1)
        one_row_s = verify_s / v
        usual_s = self._one_row_s or one_row_s
        held_up = not usual_s / _UNUSUAL < one_row_s < usual_s * _UNUSUAL
        self._one_row_s = _mix(usual_s, min(max(one_row_s, usual_s / _UNUSUAL), usual_s * _UNUSUAL), 0.3)
        if not drafted or held_up:
            return
        costs.verify[drafted + 1] = max(1.0, _mix(v, verify_s / self._one_row_s, 0.03))
        step = draft_s / drafted / self._one_row_s
        costs.drafter = _mix(costs.drafter, min(step, 2 * max(costs.drafter, 0.01)), 0.1)

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


def _mix(old: float, new: float, weight: float) -> float:
    return old + weight * (new - old)


def _on_a_line(known: Mapping[int, float], at: int) -> float:
    below = max((n for n in known if n <= at), default=min(known))
    above = min((n for n in known if n >= at), default=max(known))
    if below == above:
        return known[below]
    return known[below] + (at - below) / (above - below) * (known[above] - known[below])
