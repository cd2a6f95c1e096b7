"""The figures: what counts in them, and the theory they are held against."""

import pytest

from specdec_core.metrics import (
    acceptance_by_position,
    expected_tokens,
    expected_tokens_iid,
    predicted_speedup,
    summarize,
)
from specdec_core.trace import Round, Token


def _round(index: int, kinds: str, seconds: float = 0.1) -> Round:
    """`kinds` by letter: a accepted, r rejected, u untested, c correction, b bonus, p plain."""
    names = {"a": "accepted", "r": "rejected", "u": "untested", "c": "correction", "b": "bonus", "p": "plain"}
    tokens = [Token(7, "x", names[letter]) for letter in kinds]
    return Round(index, 0, 4, "fixed", tokens, "", seconds / 4, seconds / 2, seconds / 4)


def _stats(*kinds: str):
    rounds = [_round(index, text) for index, text in enumerate(kinds)]
    return summarize(rounds, time_to_first_token_s=0.5, prompt_tokens=9)


def test_acceptance_is_counted_over_tested_drafts_and_over_drafted_ones_apart():
    stats = _stats("p", "aaruc", "aaaab")
    assert (stats.drafted, stats.tested, stats.accepted) == (8, 7, 6)
    assert stats.acceptance_rate == pytest.approx(6 / 7)
    assert stats.accepted_per_drafted == pytest.approx(6 / 8)


def test_the_token_of_prefill_belongs_to_no_round():
    stats = _stats("p", "aaaab")
    assert (stats.rounds, stats.block_efficiency, stats.new_tokens) == (1, 5.0, 6)
    assert stats.tokens_per_second == pytest.approx(5 / 0.1)


def test_a_round_without_tokens_counts_nowhere():
    with_end = summarize(
        [_round(0, "p"), _round(1, "ab"), _round(2, "")], time_to_first_token_s=0, prompt_tokens=1
    )
    assert (with_end.rounds, with_end.block_efficiency) == (1, 2.0)


@pytest.mark.parametrize(("same_rows", "tokens"), [(True, 6), (False, 3), (None, None)])
def test_tokens_of_rows_that_depend_on_no_other_are_counted(same_rows, tokens):
    rounds = [_round(0, "p"), _round(1, "aruc"), _round(2, "p"), _round(3, "b"), _round(4, "rc")]
    stats = summarize(rounds, time_to_first_token_s=0, prompt_tokens=1, same_rows=same_rows)
    assert (stats.new_tokens, stats.same_rows) == (6, tokens)


def test_rates_of_nothing_are_none():
    stats = _stats("p")
    assert stats.acceptance_rate is stats.block_efficiency is stats.tokens_per_second is None


def test_acceptance_by_position_counts_only_what_was_tested_there():
    rounds = [_round(1, "aaruc"), _round(2, "ruuuc"), _round(3, "aaaab")]
    assert acceptance_by_position(rounds) == [2 / 3, 1.0, 1 / 2, 1.0]


def test_expected_tokens_with_one_alpha_is_leviathan_s_formula():
    for alpha in (0.0, 0.3, 0.8):
        for gamma in (0, 1, 5):
            wanted = (1 - alpha ** (gamma + 1)) / (1 - alpha)
            assert expected_tokens_iid(alpha, gamma) == pytest.approx(wanted)
    assert expected_tokens_iid(1.0, 5) == 6


def test_expected_tokens_by_position_multiplies_up():
    assert expected_tokens([0.9, 0.5]) == pytest.approx(1 + 0.9 + 0.45)


def test_predicted_speedup_can_be_a_loss():
    assert predicted_speedup(expected_tokens([0.1] * 4), 4, c=0.45, v=1.1) < 1
