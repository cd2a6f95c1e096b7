"""The speedup from paired stretches, and from whole answers, as plain figures."""

import pytest

import specdec_core as sd
from specdec_ui.compare.speedup import LEAST_PAIRS, Timing, all_narrow, interval_of, paired_speedup


def rounds(tokens, seconds, drafts=0, count=4):
    """The rounds of an answer after its prefill."""
    token = sd.Token(1, "x", "plain")
    draft = sd.Token(2, "x", "untested")
    return [
        sd.Round(at, 0, drafts, "fixed", [token] * tokens + [draft] * drafts, "x", 0.0, seconds, 0.0)
        for at in range(1, count + 1)
    ]


def test_a_load_on_both_stretches_of_a_pair_cancels():
    plain, drafted = rounds(1, 0.01), rounds(3, 0.02, 2)
    slow = [rounds(1, 0.05), rounds(3, 0.1, 2)]
    speedup = paired_speedup(Timing([plain], [plain, slow[0]]), Timing([drafted], [drafted, slow[1]]))
    assert (speedup.low, speedup.median, speedup.high) == pytest.approx((1.5, 1.5, 1.5))


def test_a_round_that_the_system_interrupted_does_not_make_its_stretch_slow():
    plain, drafted = rounds(1, 0.01), rounds(3, 0.02, 2)
    interrupted = [*drafted[:1], *rounds(3, 0.5, 2, count=1), *drafted[2:]]
    speedup = paired_speedup(Timing([plain], [plain]), Timing([drafted], [interrupted]))
    assert speedup.median == pytest.approx(1.5)


def test_a_stretch_without_its_pair_is_left_out():
    plain, drafted = rounds(1, 0.01), rounds(3, 0.02, 2)
    speedup = paired_speedup(
        Timing([plain], [plain, rounds(1, 9.0), None]), Timing([drafted], [drafted, None, rounds(3, 9.0, 2)])
    )
    assert (speedup.pairs, speedup.median) == (1, pytest.approx(1.5))


@pytest.mark.parametrize("answers", [[], [[]], [rounds(1, 0.0)]])
def test_without_rounds_that_took_time_there_is_no_speedup(answers):
    plain = rounds(1, 0.01)
    assert paired_speedup(Timing(answers, [None]), Timing([plain], [plain])) is None
    assert paired_speedup(Timing([plain], [plain]), Timing(answers, [None])) is None


def test_few_pairs_have_no_interval():
    assert interval_of(sd.median_ratio([1.4] * (LEAST_PAIRS - 1))) is None
    assert interval_of(sd.median_ratio([1.4] * LEAST_PAIRS)).pairs == LEAST_PAIRS
    assert interval_of(None) is None


def test_all_speedups_have_to_be_narrow():
    narrow, wide = sd.median_ratio([1.4] * 9), sd.median_ratio([1.0, 1.8] * 5)
    assert all_narrow([narrow, narrow])
    assert not all_narrow([narrow, wide])
    assert not all_narrow([narrow, None])
