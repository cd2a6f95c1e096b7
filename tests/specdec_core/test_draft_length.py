"""The adaptive gamma follows what was measured, and never insists on a draft that does not pay."""

import random

import pytest

from specdec_core.draft_length import AdaptiveGamma, StepCosts
from specdec_core.metrics import expected_tokens, predicted_speedup

CHEAP = {1: 1.0, 2: 1.02, 3: 1.04, 5: 1.1, 9: 1.3}
STEEP = {1: 1.0, 2: 2.0, 3: 3.0, 5: 5.0, 9: 9.0}


def _run(
    policy: AdaptiveGamma,
    alpha: float,
    rounds: int,
    c: float = 0.15,
    v=CHEAP,
    seed: int = 1,
    catch_up: float = 0.0,
):
    """Plays rounds in which every draft stands with probability alpha; gammas chosen, and the speedup.

    After more than one plain round the first draft costs `catch_up` more.
    """
    rng = random.Random(seed)
    chosen, tokens, time = [], 0.0, 0.0
    real, missed = StepCosts(c, dict(v)), 0
    for _ in range(rounds):
        gamma, _ = policy.choose()
        accepted = 0
        while accepted < gamma and rng.random() < alpha:
            accepted += 1
        draft_s, verify_s = gamma * c, real.v(gamma + 1)
        catch_up_s = catch_up if gamma and missed > 1 else 0.0
        missed = 0 if gamma else missed + 1
        policy.observe(gamma, accepted, draft_s, verify_s, catch_up_s)
        chosen.append(gamma)
        tokens += accepted + 1
        time += draft_s + verify_s + catch_up_s
    return chosen, tokens / time


def _best_fixed(alpha: float, c: float, v) -> float:
    costs = StepCosts(c, dict(v))
    return max(predicted_speedup(expected_tokens([alpha] * g), g, c, costs.v(g + 1)) for g in range(9))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("c", [0.05, 0.2, 0.45])
def test_it_comes_within_five_percent_of_the_best_fixed_gamma(alpha, c):
    _, speedup = _run(AdaptiveGamma(StepCosts(c, dict(CHEAP))), alpha, 3000, c)
    assert speedup > 0.95 * _best_fixed(alpha, c, CHEAP)


def test_where_no_draft_stands_it_stops_drafting_and_loses_next_to_nothing():
    chosen, speedup = _run(AdaptiveGamma(StepCosts(0.15, dict(CHEAP))), 0.0, 150)
    assert chosen[-20:].count(0) >= 18
    assert speedup > 0.97


@pytest.mark.parametrize("catch_up", [0.3, 3.0])
def test_what_it_loses_to_probes_does_not_depend_on_what_catching_up_costs(catch_up):
    """Over many short conversations with a drafter of which no draft stands."""
    costs = StepCosts(0.15, dict(CHEAP))
    _run(AdaptiveGamma(costs), 0.0, 300, catch_up=catch_up)
    speedups = [_run(AdaptiveGamma(costs), 0.0, 100, catch_up=catch_up)[1] for _ in range(20)]
    assert 0.98 < sum(speedups) / len(speedups) < 1.0


def test_where_verification_is_dear_it_does_not_draft():
    chosen, _ = _run(AdaptiveGamma(StepCosts(0.3, dict(STEEP))), 0.7, 200, 0.3, STEEP)
    assert chosen[-50:].count(0) > 45


def test_it_probes_and_comes_back_when_drafts_stand_again():
    policy = AdaptiveGamma(StepCosts(0.1, dict(CHEAP)))
    _run(policy, 0.0, 300, 0.1)
    chosen, _ = _run(policy, 0.95, 600, 0.1)
    assert min(chosen[-50:]) >= 3


def test_a_new_conversation_expects_what_the_pair_had_so_far():
    costs = StepCosts(0.15, dict(CHEAP))
    assert AdaptiveGamma(costs).choose()[0] > 0
    for _ in range(10):
        _run(AdaptiveGamma(costs), 0.0, 100)
    gamma, why = AdaptiveGamma(costs).choose()
    assert gamma == 0 or "probe" in why
    _run(AdaptiveGamma(costs), 0.95, 3000)
    assert AdaptiveGamma(costs).choose()[0] > 2


def test_wrong_costs_are_corrected_by_what_is_measured():
    policy = AdaptiveGamma(StepCosts(1.2, dict(CHEAP)))
    chosen, _ = _run(policy, 0.9, 400, 0.1)
    assert min(chosen[-50:]) >= 3


def test_a_machine_that_slows_down_changes_nothing():
    costs = StepCosts(0.2, dict(CHEAP))
    for slowdown in (1, 1, 1, 7, 7, 7):
        costs.observe(4, 4 * 0.2 * slowdown, 1.1 * slowdown)
    assert costs.drafter == pytest.approx(0.2, rel=0.05)
    assert costs.v(5) == pytest.approx(1.1, rel=0.05)


def test_catching_up_with_a_long_prompt_is_not_the_cost_of_a_step():
    costs = StepCosts(0.2, dict(CHEAP))
    costs.observe(4, 50.0, 1.1)
    assert costs.drafter == 0.2


def test_costs_between_measured_rows_lie_on_a_line():
    costs = StepCosts(0.2, {1: 1.0, 3: 2.0, 9: 5.0})
    assert [costs.v(rows) for rows in (1, 2, 3, 6, 9, 12)] == [1.0, 1.5, 2.0, 3.5, 5.0, 5.0]


def test_it_says_why():
    assert "expected" in AdaptiveGamma(StepCosts(0.1, dict(CHEAP))).choose()[1]
    dear = AdaptiveGamma(StepCosts(3.0, dict(CHEAP)))
    assert "no draft" in dear.choose()[1]
