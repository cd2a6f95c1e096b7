"""The adaptive gamma follows what was measured, and never insists on a draft that does not pay."""

import random

import pytest

from specdec_core.drafting.length import AdaptiveGamma, StepCosts
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
):
    """Plays rounds in which every draft stands with probability alpha; gammas chosen, and the speedup.

    A draft after plain rounds costs what the policy is told that catching up costs.
    """
    rng = random.Random(seed)
    chosen, tokens, time = [], 0.0, 0.0
    real, missing = StepCosts(c, dict(v), policy.costs.catch_up), 1
    for _ in range(rounds):
        gamma = policy.choose(missing).gamma
        accepted = 0
        while accepted < gamma and rng.random() < alpha:
            accepted += 1
        draft_s, verify_s = gamma * c, real.v(gamma + 1)
        policy.observe(gamma, accepted, draft_s, verify_s)
        chosen.append(gamma)
        tokens += accepted + 1
        time += draft_s + verify_s + (real.catching_up(missing) if gamma else 0.0)
        missing = 1 if gamma else missing + 1
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


@pytest.mark.parametrize("catch_up", [(0.0, 0.0), (0.3, 0.005), (3.0, 0.0), (0.5, 0.05)])
def test_what_it_loses_to_probes_does_not_depend_on_what_catching_up_costs(catch_up):
    """Over many short conversations with a drafter of which no draft stands."""
    costs = StepCosts(0.15, dict(CHEAP), catch_up)
    _run(AdaptiveGamma(costs), 0.0, 300)
    speedups = [_run(AdaptiveGamma(costs), 0.0, 100)[1] for _ in range(20)]
    assert 0.98 < sum(speedups) / len(speedups) <= 1.0


def test_a_long_prompt_is_not_read_for_a_probe():
    costs = StepCosts(0.15, dict(CHEAP), (0.3, 0.01), first_rate=0.0, plain_rounds=150)
    assert [AdaptiveGamma(costs).choose(missing).gamma for missing in (20, 4000)] == [1, 0]


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
    assert AdaptiveGamma(costs).choose(0).gamma > 0
    for _ in range(10):
        _run(AdaptiveGamma(costs), 0.0, 100)
    choice = AdaptiveGamma(costs).choose(0)
    assert choice.gamma == 0 or choice.reason == "probe"
    _run(AdaptiveGamma(costs), 0.95, 3000)
    assert AdaptiveGamma(costs).choose(0).gamma > 2


def test_wrong_costs_are_corrected_by_what_is_measured():
    policy = AdaptiveGamma(StepCosts(1.2, dict(CHEAP)))
    chosen, _ = _run(policy, 0.9, 400, 0.1)
    assert min(chosen[-50:]) >= 3


@pytest.mark.parametrize("slowdowns", [[1] * 5 + [7] * 30 + [1] * 60, [1] * 9 + [100] + [1] * 40])
def test_a_machine_that_slows_down_or_holds_up_a_round_changes_next_to_nothing(slowdowns):
    costs = StepCosts(0.2, dict(CHEAP))
    policy = AdaptiveGamma(costs)
    for slowdown in slowdowns:
        policy.observe(4, 2, 4 * 0.2 * slowdown, 1.1 * slowdown)
    assert costs.drafter == pytest.approx(0.2, rel=0.05)
    assert costs.v(5) == pytest.approx(1.1, rel=0.05)


def test_a_longer_context_elsewhere_is_not_the_cost_of_a_verification():
    """An answer whose rows take twice as long, without drafts, between rounds of a short one."""
    costs = StepCosts(0.2, dict(CHEAP))
    long, short = AdaptiveGamma(costs), AdaptiveGamma(costs)
    for _ in range(200):
        long.observe(0, 0, 0.0, 2.0)
        short.observe(4, 2, 4 * 0.2, 1.1)
    assert costs.v(5) == pytest.approx(1.1)


def test_a_drafter_that_costs_far_more_than_its_bare_steps_is_found_out():
    costs = StepCosts(0.05, dict(CHEAP))
    policy = AdaptiveGamma(costs)
    for _ in range(60):
        policy.observe(4, 2, 4 * 0.5, 1.1)
    assert costs.drafter == pytest.approx(0.5, rel=0.1)


def test_costs_between_measured_rows_lie_on_a_line():
    costs = StepCosts(0.2, {1: 1.0, 3: 2.0, 9: 5.0})
    assert [costs.v(rows) for rows in (1, 2, 3, 6, 9, 12)] == [1.0, 1.5, 2.0, 3.5, 5.0, 5.0]


def test_it_says_why():
    expected = AdaptiveGamma(StepCosts(0.1, dict(CHEAP))).choose(0)
    assert expected.reason == "auto"
    assert expected.gain > 1
    dear = AdaptiveGamma(StepCosts(3.0, dict(CHEAP)))
    assert dear.choose(0).reason == "unprofitable"
