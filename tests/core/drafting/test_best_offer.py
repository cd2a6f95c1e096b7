"""gamma="auto" with two drafters takes the faster one in each round, and never insists on the slower."""

import random

import pytest

from specdec_core.drafting import Offer
from specdec_core.drafting.best_offer import BestOffer
from specdec_core.drafting.length import AdaptiveGamma, StepCosts

V = {1: 1.0, 2: 1.1, 3: 1.2, 5: 1.4, 9: 2.0}
C = 0.1
CATCH_UP = (0.3, 0.03)


def _lengths(sources=("ngram", "model"), catch_up=CATCH_UP) -> dict:
    costs = {"ngram": StepCosts(0.0, dict(V)), "model": StepCosts(C, dict(V), catch_up)}
    return {source: AdaptiveGamma(costs[source]) for source in sources}


def _run(policy: BestOffer, matches: float, ngram: float, model: float, rounds: int = 3000):
    """Play rounds over passages of 20 tokens, with a share in which n-grams match, and a probability of
    acceptance for each drafter.

    Returns the drafters of the last 500 rounds, by rounds with a match and without, and the speedup.
    """
    rng = random.Random(1)
    alpha = {"ngram": ngram, "model": model}
    real = StepCosts(C, dict(V), CATCH_UP)
    with_match, without, tokens, time, missing = [], [], 0, 0.0, 1
    for at in range(rounds):
        matched = random.Random(tokens // 20).random() < matches
        offers = [Offer("ngram", 16)] if matched and "ngram" in policy.lengths else []
        offers += [Offer("model", 500, missing)] if "model" in policy.lengths else []
        choice = policy.choose(offers)
        source = choice.offer.source if choice.offer is not None else None
        accepted = 0
        while accepted < choice.gamma and rng.random() < alpha[source]:
            accepted += 1
        draft_s = choice.gamma * C if source == "model" else 0.0
        verify_s = real.v(choice.gamma + 1)
        policy.observe(choice.gamma, accepted, draft_s, verify_s)
        tokens += accepted + 1
        time += draft_s + verify_s
        if source == "model":
            time += real.catching_up(missing)
        missing = 1 if source == "model" else missing + accepted + 1
        if at >= rounds - 500:
            (with_match if matched else without).append(source)
    return with_match, without, tokens / time


def test_it_takes_n_grams_where_they_match_and_the_model_elsewhere():
    with_match, without, _ = _run(BestOffer(_lengths()), 0.4, 0.9, 0.7)
    assert with_match.count("ngram") > 0.95 * len(with_match)
    assert without.count("model") > 0.95 * len(without)


def test_it_takes_the_model_where_matches_are_chance():
    with_match, without, _ = _run(BestOffer(_lengths()), 0.4, 0.1, 0.7)
    assert with_match.count("model") > 0.95 * len(with_match)
    assert without.count("model") > 0.95 * len(without)


def test_it_drafts_by_n_grams_alone_beside_a_model_that_does_not_pay():
    with_match, without, _ = _run(BestOffer(_lengths()), 0.4, 0.9, 0.0)
    assert with_match.count("ngram") > 0.95 * len(with_match)
    assert without.count(None) > 0.95 * len(without)


@pytest.mark.parametrize("ngram", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("model", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("matches", [0.1, 0.5, 0.9])
def test_it_comes_within_three_percent_of_the_better_drafter_alone(matches, ngram, model):
    *_, both = _run(BestOffer(_lengths()), matches, ngram, model)
    alone = [_run(BestOffer(_lengths([source])), matches, ngram, model)[2] for source in ("ngram", "model")]
    assert both > 0.97 * max(alone)


def test_n_grams_come_back_when_matches_stand_again():
    policy = BestOffer(_lengths())
    _run(policy, 0.5, 0.0, 0.6)
    with_match, *_ = _run(policy, 0.5, 0.95, 0.6)
    assert with_match.count("ngram") > 0.9 * len(with_match)


def test_rounds_of_n_grams_do_not_fade_what_is_known_of_the_model():
    policy = BestOffer(_lengths())
    for _ in range(100):
        policy.lengths["ngram"].observe(8, 8, 0.0, V[9])
        policy.lengths["model"].observe(2, 1, 2 * C, V[3])
    known = policy.lengths["model"].acceptance()
    for _ in range(200):
        choice = policy.choose([Offer("ngram", 16), Offer("model", 500, 1)])
        assert choice.offer is not None
        assert choice.offer.source == "ngram"
        policy.observe(choice.gamma, choice.gamma, 0.0, V[9])
    assert policy.lengths["model"].acceptance() == known


def test_catching_up_is_earned_back_before_the_next_n_grams():
    """A model that gains little in a round is left out if n-grams leave it behind every third round."""
    often, once = (BestOffer(_lengths(catch_up=(3.0, 0.0))) for _ in range(2))
    for _ in range(20):
        for offers in ([Offer("ngram", 16)], [], []):
            gamma = often.choose(offers).gamma
            often.observe(gamma, gamma, 0.0, StepCosts(0.0, dict(V)).v(gamma + 1))
    assert often.toll("model") == pytest.approx(1.5)
    assert (once.toll("model"), often.toll("ngram")) == (0.0, 0.0)
    offers = [Offer("model", 500, 20)]
    assert once.choose(offers).reason == "auto"
    assert often.choose(offers).reason != "auto"


def test_without_an_offer_there_is_no_draft():
    assert BestOffer(_lengths()).choose([]).gamma == 0
