"""Words for a speedup, its interval and the best gamma: the same as what is drawn."""

import json
import random
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import specdec_core as sd
from specdec_ui.compare import result as compare_result, words as compare_words
from specdec_ui.compare.comparison import Comparison, Costs, to_json
from specdec_ui.compare.race import race
from tests.support.comparisons import lane, made_up
from tests.support.replay import STORY

FASTER = sd.Ratio(1.42, 1.36, 1.48, 12)


def curve_lane(rng):
    """A lane with random acceptance and costs, and so with a random predicted curve."""
    alpha = rng.uniform(0.05, 0.99)
    answer = lane(gamma=rng.randint(1, 8))
    last = answer.rounds[-1]
    positions = [min(1.0, alpha * rng.uniform(0.8, 1.1)) for _ in range(answer.settings.gamma)]
    stats = replace(last.stats, acceptance_rate=alpha, acceptance_by_position=positions)
    slope = rng.choice([0.0, rng.uniform(0.0, 0.3)])
    costs = Costs(rng.choice([0.0, rng.uniform(0.0, 0.6)]), tuple(1 + slope * rows for rows in range(9)))
    return replace(answer, rounds=[*answer.rounds[:-1], replace(last, stats=stats)], costs=costs)


def drawn_best(comparison):
    """The gammas at the top of the drawn curve, within the drawing's resolution."""
    dots = ElementTree.fromstring(compare_result.charts(comparison)).findall(".//circle[@class='chart-dot']")
    heights = [float(dot.get("cy")) for dot in dots]
    return {gamma for gamma, y in enumerate(heights) if y <= min(heights) + 0.11}


def test_words_about_gamma_agree_with_the_drawn_curve_for_every_curve():
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        drafted = curve_lane(rng)
        done = Comparison("x", (lane("plain", gamma=0), drafted))
        curve, used = drafted.prediction.by_position, drafted.settings.gamma
        said = compare_words.other_gamma(drafted, done.speedup(drafted), done.outcome(drafted))
        if "no gain from any gamma" in said or "No draft length" in said:
            named, case = 0, "none pays"
        elif match := re.fullmatch(r"No other gamma is predicted to do better than (\d)", said):
            named, case = int(match[1]), "the used one is the best"
            assert named == used
        elif match := re.fullmatch(r"Gamma (\d) is predicted to be (.+) % faster than (\d), too .*", said):
            named, case = int(match[1]), "another is hardly better"
            percent = 100 * (curve[named] / curve[used] - 1)
            assert int(match[3]) == used
            assert 0 < percent < 2
            assert match[2] == (f"{percent:.1f}" if percent >= 0.1 else "less than 0.1")
        else:
            named, case = int(re.match(r"Gamma (\d) would have", said)[1]), "another is better"
            assert curve[named] >= 1.02 * curve[used]
        seen.add(case)
        assert curve[named] == max(curve)
        assert named in drawn_best(done)
    assert len(seen) == 4


def test_the_headline_has_the_speedup_with_its_interval():
    headline = ElementTree.fromstring(compare_result.headline(made_up(speedup=FASTER)))
    verdict = "".join(headline.find(".//p[@class='result-verdict']").itertext())
    assert verdict.startswith("1.42× faster (1.36–1.48) ")
    assert "95 % confidence interval, from 12 pairs" in "".join(headline.itertext())
    assert to_json(made_up(speedup=FASTER))["lanes"][1]["speedup_low"] == 1.36


def test_rates_in_headline_chart_and_table_have_the_ratio_of_the_headline():
    done = made_up(speedup=FASTER)
    rate = done.rate(done.lanes[1])
    assert rate / done.rate(done.baseline) == pytest.approx(1.42)
    shown = compare_result.headline(done), compare_result.charts(done), compare_result.table([done], 1)
    assert all(f"{rate:.1f}" in each for each in shown)


def test_the_replay_has_the_speedup_of_the_headline():
    done = made_up(speedup=FASTER)
    plain, drafted = json.loads(race(done, 1).splitlines()[0])["lanes"]
    counted = [sum(each.tokens_by_round) for each in done.lanes]
    assert counted[1] / drafted["seconds"] / (counted[0] / plain["seconds"]) == pytest.approx(1.42)
    assert plain["scale"] == 1
    assert drafted["seconds"] == pytest.approx(done.lanes[1].decoding_s * drafted["scale"])


@pytest.mark.parametrize(
    ("ratio", "outcome", "said"),
    [
        (sd.Ratio(1.42, 1.36, 1.48, 12), "faster", "1.42× faster"),
        (sd.Ratio(1.06, 0.97, 1.15, 12), "equal", "1.06×, no clear difference"),
        (sd.Ratio(1.01, 1.005, 1.015, 12), "equal", "1.01×, no clear difference"),
        (sd.Ratio(0.94, 0.85, 1.03, 12), "equal", "0.94×, no clear difference"),
        (sd.Ratio(0.81, 0.79, 0.83, 12), "slower", "0.81×, so slower"),
        (sd.Ratio(1.42, 1.42, 1.42, 1), "faster", "1.42× faster"),
    ],
)
def test_a_speedup_is_called_one_only_if_its_interval_says_so(ratio, outcome, said):
    done = made_up(speedup=ratio)
    drafted = done.lanes[1]
    assert done.outcome(drafted) == outcome
    assert compare_words.verdict(done.speedup(drafted), outcome) == said
    assert f'data-outcome="{outcome}"' in compare_result.headline(done)
    slow = "What weighs most" in compare_words.explanation(done, drafted)
    assert slow == (outcome == "slower")


def test_the_parts_of_a_slow_round_add_up_to_its_cost():
    done = made_up(speedup=sd.Ratio(0.5, 0.49, 0.51, 12))
    said = compare_words.explanation(done, done.lanes[1])
    cost = float(re.search(r"took the time of ([\d.]+) plain steps", said)[1])
    parts = re.search(r"Of these, ([\d.]+) went into drafting, ([\d.]+) .*?, ([\d.]+) into the rest", said)
    assert sum(map(float, parts.groups())) == pytest.approx(cost, abs=0.02)


def test_too_wide_an_interval_is_said_with_what_helps():
    wide = made_up(speedup=sd.Ratio(1.4, 1.1, 1.7, 12))
    assert any("less certain than ±5 %" in note for note in compare_words.notes(wide))
    assert not any("less certain" in note for note in compare_words.notes(made_up(speedup=FASTER)))


def test_one_by_one_it_is_said_that_a_load_may_have_changed_the_speedup():
    assert any("one after the other" in note for note in compare_words.notes(made_up()))
    assert not any("one after the other" in note for note in compare_words.notes(made_up(speedup=FASTER)))


def test_where_one_answer_ends_the_token_is_called_the_end_token():
    plain = lane("plain", gamma=0, text=STORY)
    drafted = lane(text=" ".join(STORY.split(" ")[:5]))
    said = compare_words.sameness(Comparison("x", (plain, drafted)), drafted)
    assert "the other had ended" in said
    shorter = replace(plain.rounds[3], finish_reason="eos", stats=plain.rounds[-1].stats)
    token = replace(shorter.tokens[0], id=2, text="")
    ended = replace(plain, rounds=[*plain.rounds[:3], replace(shorter, tokens=[token])])
    said = compare_words.sameness(Comparison("x", (ended, lane())), lane())
    assert "plain decoding has the end token, the other has “" in said
