"""Figures of an answer: the live ones end at those of the final stats."""

import pytest

import specdec_core as sd
from specdec_ui.parts.figures import LiveFigures, final_figures, in_words, number, seconds
from tests.support.replay import STORY, rounds_of


@pytest.mark.parametrize("gamma", [0, 1, 4])
def test_live_figures_end_at_the_final_ones(gamma):
    rounds = rounds_of(STORY, gamma)
    live = LiveFigures(first_token_s=0.05)
    for rnd in rounds:
        live.add(rnd)
    stats = sd.summarize(rounds, time_to_first_token_s=0.05, prompt_tokens=9)
    assert live.figures() == final_figures(stats)


def test_what_was_not_counted_is_a_dash():
    assert LiveFigures().figures() == ["–", "–", "–", "–"]
    assert number(None) == "–"
    assert seconds(None) == "–"


def test_plain_decoding_has_no_acceptance_rate():
    stats = sd.summarize(rounds_of(STORY, 0), time_to_first_token_s=0.05, prompt_tokens=9)
    assert final_figures(stats)[1:3] == ["–", "1.00"]
    assert "nothing was drafted" in in_words(stats)


def test_an_acceptance_rate_of_zero_is_a_number():
    live = LiveFigures(rounds=2, emitted=2, tested=2, accepted=0, seconds=1.0)
    assert live.figures()[1] == "0 %"


def test_the_words_name_the_counts():
    stats = sd.summarize(rounds_of(STORY, 4), time_to_first_token_s=0.05, prompt_tokens=9)
    assert f"{stats.drafted} tokens were drafted" in in_words(stats)
    assert f"kept {stats.accepted}" in in_words(stats)
