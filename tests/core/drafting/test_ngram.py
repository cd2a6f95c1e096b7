"""Drafts from the text's own past: the longest match first, the latest where it stood more than once."""

from specdec_core.drafting import NgramDrafter
from specdec_core.sampling.filters import SamplingParams
from specdec_core.sampling.host import GreedySampler


def _propose(context: list[int], gamma: int = 4, drafter: NgramDrafter | None = None) -> list[int]:
    sampler = GreedySampler(SamplingParams.of(0.0))
    sampler.start_round(context, gamma)
    (drafter or NgramDrafter()).propose(context, gamma, sampler)
    last, *drafts = sampler.rows.tolist()
    assert last == context[-1]
    return drafts


def test_what_followed_the_same_run_before_is_proposed():
    assert _propose([1, 2, 3, 4, 5, 6, 9, 1, 2]) == [3, 4, 5, 6]


def test_without_a_match_there_is_no_draft():
    assert _propose([1, 2, 3, 4, 5]) == []
    assert _propose([7]) == []


def test_a_single_token_is_no_match():
    assert _propose([1, 2, 3, 1]) == []


def test_a_longer_match_beats_a_later_one():
    assert _propose([1, 2, 3, 10, 2, 3, 20, 1, 2, 3], 1) == [10]


def test_of_equal_matches_the_latest_counts():
    assert _propose([2, 3, 10, 2, 3, 20, 7, 2, 3], 1) == [20]


def test_a_repetition_goes_on_past_the_end_of_the_text():
    assert _propose([5, 6, 5, 6, 5, 6], 5) == [5, 6, 5, 6, 5]


def test_it_learns_as_the_context_grows():
    drafter = NgramDrafter()
    context = [1, 2, 3, 4]
    assert _propose(context, drafter=drafter) == []
    context += [8, 9, 1, 2]
    assert _propose(context, 3, drafter) == [3, 4, 8]
    context += [30, 31, 8, 9]
    assert _propose(context, 3, drafter) == [1, 2, 30]
