"""Expected acceptance on distributions small enough to work out by hand."""

import pytest
import torch

from training.smollm2.evaluation import Acceptance, expected_acceptance

P = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.6, 0.2]])
Q = torch.tensor([[0.6, 0.4], [0.25, 0.75]])  # over the ids 1 and 3
IDS = torch.tensor([1, 3])


def test_it_is_the_overlap_over_the_heads_ids():
    # Row 0: min(.3, .6) + min(.1, .4); row 1: min(.1, .25) + min(.2, .75).
    accepted = expected_acceptance(P.log(), Q.log(), IDS, 1.0)
    assert accepted.tolist() == pytest.approx([0.4, 0.3])


def test_temperature_sharpens_both():
    # At temperature 1/2 both are squared: row 0 of p has .25 + .09 + .01 + .01 = .36.
    accepted = expected_acceptance(P.log(), Q.log(), IDS, 0.5)
    assert accepted[0].item() == pytest.approx(0.09 / 0.36 + 0.01 / 0.36)


def test_at_temperature_zero_the_choices_are_equal_or_not():
    target = torch.tensor([[0.0, 2.0, 1.0, 0.0], [3.0, 0.0, 0.0, 1.0]])
    assert expected_acceptance(target, Q.log(), IDS, 0.0).tolist() == [1.0, 0.0]


def test_a_round_emits_the_sum_of_powers():
    acceptance = Acceptance(100, {0.0: 0.9, 0.8: 0.5, 1.0: 0.9})
    assert acceptance.tokens_per_round(2) == 1.75
