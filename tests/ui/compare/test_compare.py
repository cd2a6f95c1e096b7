"""Compare: both lanes under the same settings, what was measured in words and charts, cancel and lists."""

import json
import re
import threading
from dataclasses import replace
from xml.etree import ElementTree

import pytest

import specdec_core as sd
from specdec_ui.compare import (
    handlers as compare_handlers,
    result as compare_result,
    words as compare_words,
)
from specdec_ui.compare.comparison import Comparison, to_json
from specdec_ui.compare.lanes import LaneChoice, plan
from specdec_ui.compare.race import race
from specdec_ui.compare.run import compare
from specdec_ui.parts import charts
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.visitors import Visitor
from tests.support.comparisons import (
    COUPLED,
    NGRAM,
    NO_EXTRA_LANES,
    ONE_BY_ONE,
    VALUES,
    lane,
    made_up,
    run,
)
from tests.support.replay import STORY, ReplayEngine, loaded_holder

HOSTILE = "</title><script>alert(1)</script> ${alert(2)} {{value}} <img src=x onerror=alert(3)>"


def test_all_lanes_get_the_same_settings_but_for_what_drafts():
    lanes = dict(plan(replace(COUPLED, seed=None), NGRAM, has_drafter=True))
    assert [lanes[name].gamma for name in ("plain", "model", "ngram")] == [0, 4, 4]
    assert len({settings.seed for settings in lanes.values()}) == 1
    same = {replace(settings, gamma=4, drafting="model", stop=()) for settings in lanes.values()}
    assert len(same) == 1


def test_lanes_are_chosen_by_name():
    choice = LaneChoice.named(["both", "generate", "unknown", "ngram"], alternate=False)
    assert choice == LaneChoice(("ngram", "both"), ("generate",), alternate=False)
    lanes = plan(COUPLED, choice, has_drafter=True)
    assert [name for name, _ in lanes] == ["plain", "model", "ngram", "both", "generate"]
    assert dict(lanes)["both"].drafting == "both"
    assert [name for name, _ in plan(COUPLED, choice, has_drafter=False)] == ["plain", "ngram", "generate"]


def test_without_a_drafter_n_gram_drafting_is_compared():
    assert [name for name, _ in plan(COUPLED, NO_EXTRA_LANES, has_drafter=False)] == ["plain", "ngram"]


def test_with_a_real_pair_coupled_lanes_have_the_same_text(engine):
    settings = replace(COUPLED, max_new_tokens=40, temperature=1.0)
    lanes = LaneChoice(drafting=("ngram", "both"), repeat_s=0.0)
    *_, done = compare(engine, "Once upon a time", settings, lanes, threading.Event())
    assert [each.name for each in done.lanes] == ["plain", "model", "ngram", "both"]
    assert [done.divergence(each) for each in done.drafting_lanes] == [None, None, None]
    assert all(done.speedup(each) > 0 for each in done.drafting_lanes)
    assert json.loads(json.dumps(to_json(done)))["lanes"][1]["same_text"] is True


def test_lanes_take_turns_in_going_first_and_are_shown_in_one_order(engine):
    settings = replace(COUPLED, max_new_tokens=4)
    for turn, first in ((0, "plain"), (1, "model")):
        steps = list(compare(engine, "Once upon a time", settings, ONE_BY_ONE, threading.Event(), turn))
        assert steps[0].name == first
        assert steps[-1].lanes[0].name == "plain"


def test_the_prediction_at_gamma_0_is_the_baseline_and_follows_the_formula():
    prediction = lane().prediction
    assert prediction.by_position[0] == prediction.one_alpha[0] == 1
    stats = lane().stats
    first = stats.acceptance_by_position[0]
    assert prediction.by_position[1] == pytest.approx((1 + first) / (0.1 + 1.05))


def test_a_round_s_tokens_over_its_plain_steps_is_the_speedup():
    done = made_up()
    drafted = done.drafting_lanes[0]
    assert drafted.stats.block_efficiency / done.round_cost(drafted) == pytest.approx(done.speedup(drafted))


def test_the_words_give_the_speedup_the_acceptance_and_a_better_gamma():
    done = made_up(slower=1.2)
    drafted = done.drafting_lanes[0]
    verdict = compare_words.verdict(done.speedup(drafted), done.outcome(drafted))
    assert re.fullmatch(r"\d\.\d\d× faster", verdict)
    said = compare_words.explanation(done, drafted)
    assert f"{100 * drafted.stats.acceptance_rate:.0f} % of the tested drafts stood" in said
    assert re.search(r"Gamma \d would have given about \d\.\d\d×|No other gamma", said)


def test_below_1_the_words_say_slower_and_why():
    done = made_up(slower=6)
    drafted = done.drafting_lanes[0]
    assert "slower" in compare_words.verdict(done.speedup(drafted), done.outcome(drafted))
    assert "but took the time of 6.00 plain steps" in compare_words.explanation(done, drafted)
    assert "verifying" in compare_words.explanation(done, drafted)
    assert 'data-outcome="slower"' in compare_result.headline(done)


def test_the_same_text_is_called_the_same():
    done = made_up()
    assert "the same, token for token" in compare_words.sameness(done, done.drafting_lanes[0])


def test_the_first_divergence_is_named():
    plain, drafted = lane("plain", gamma=0), lane(text=STORY.replace("little cat", "little dog"))
    done = Comparison("x", (plain, drafted), margins={"model": 3e-5})
    said = compare_words.sameness(done, drafted)
    assert "3.0e-05 apart, as close as rounding" in said
    assert done.divergence(drafted) == 8
    assert "part at token 9" in said
    assert "“ cat”" in said
    assert "“ dog”" in said


def test_rejection_promises_no_same_text():
    settings = {"verification": "rejection"}
    plain = lane("plain", gamma=0, **settings)
    done = Comparison("x", (plain, lane(text="Another story. " * 9, **settings)))
    assert "differ, and may" in compare_words.sameness(done, done.drafting_lanes[0])


def test_charts_are_well_formed_and_say_their_values():
    drawn = compare_result.charts(made_up())
    root = ElementTree.fromstring(drawn)
    pictures = root.findall(".//svg[@role='img']")
    assert len(pictures) == 4
    assert all(len(picture.get("aria-label")) > 30 for picture in pictures)
    assert "NaN" not in drawn
    assert "nan" not in drawn


@pytest.mark.parametrize(("low", "high"), [(0.76, 1.24), (0.99, 1.01), (0, 9.3), (0, 4000)])
def test_the_scale_of_a_chart_has_a_few_round_values(low, high):
    ticks = charts.ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize("text", ["One", "One two"])
def test_an_answer_with_nothing_to_measure_is_shown_without_figures(text):
    done = Comparison("x", (lane("plain", gamma=0, text=text), lane(text=text)))
    ElementTree.fromstring(compare_result.charts(done))
    ElementTree.fromstring(compare_result.headline(done))


def test_nothing_that_was_typed_or_generated_becomes_markup():
    hostile = Comparison(HOSTILE, (lane("plain", gamma=0, text=HOSTILE * 2), lane(text=HOSTILE)))
    for shown in (
        compare_result.headline(hostile),
        compare_result.charts(hostile),
        compare_result.table([hostile], 1),
        race(hostile, 1),
    ):
        assert "<script" not in shown
        assert "<img" not in shown


def test_the_race_shows_every_token_at_the_time_it_was_decoded():
    done = made_up()
    first, *lines = map(json.loads, race(done, 1).splitlines())
    assert [facts["title"] for facts in first["lanes"]] == [
        "Plain decoding",
        "Speculative decoding, gamma 4",
    ]
    for at, each in enumerate(done.lanes):
        own = [line for line in lines if line["lane"] == at]
        times = [line["at"] for line in own]
        assert times == sorted(times)
        assert times[0] == 0
        assert times[-1] == pytest.approx(each.decoding_s)
        assert own[-1]["emitted"] == len(each.emitted)


def test_a_press_shows_progress_then_the_result_and_gives_the_button_back():
    frames = run(Visitor(), loaded_holder())
    assert frames[0].running is True
    assert any("tokens so far" in (frame.progress or "") for frame in frames)
    done = next(frame for frame in frames if frame.charts)
    assert "tokens/s" in done.headline
    assert done.race
    assert frames[-1].running is False
    assert "Cancelled" not in (frames[-1].progress or "")


@pytest.mark.parametrize("prompt", ["", "  ", "a\ud800b"])
def test_what_cannot_be_compared_is_explained(prompt):
    frames = run(Visitor(), loaded_holder(), prompt)
    assert len(frames) == 1
    assert 'role="alert"' in frames[0].progress
    assert frames[0].running is False


def test_without_a_model_compare_says_what_to_do():
    assert "Press Load" in run(Visitor(), EngineHolder())[-1].progress


def test_stop_cancels_and_lets_go_of_the_pair():
    visitor, holder = Visitor(), loaded_holder()
    frames = compare_handlers.run(visitor, holder, "Tell me a story.", VALUES, NO_EXTRA_LANES, frame_s=0)
    for _ in range(4):
        next(frames)
    visitor.stop()
    assert "Cancelled" in list(frames)[-1].progress
    assert run(visitor, holder)[-1].running is False
    assert len(holder.measuring) == 0
    assert holder.current.answers == 0


def test_closing_the_page_lets_go_of_the_pair():
    visitor, holder = Visitor(), loaded_holder()
    frames = compare_handlers.run(visitor, holder, "Tell me a story.", VALUES, NO_EXTRA_LANES, frame_s=0)
    for _ in range(4):
        next(frames)
    frames.close()
    assert len(holder.measuring) == 0
    assert holder.current.answers == 0
    visitor.require_idle()


def test_a_second_comparison_waits_for_the_first():
    holder = loaded_holder()
    with holder.measuring.enter():
        frames = compare_handlers.run(
            Visitor(), holder, "Tell me a story.", VALUES, NO_EXTRA_LANES, frame_s=0
        )
        assert "Beginning" in next(frames).progress
        assert "Number 1 in line" in next(frames).progress
    assert any(frame.headline for frame in frames)


def test_a_list_gives_a_row_a_prompt_with_mean_and_spread():
    typed = compare_handlers.read_prompts_file("\ufeffOne <b>\n\n  Two  \r\nThree".encode())
    assert typed == "One <b>\nTwo\nThree"
    frames = list(
        compare_handlers.run_list(Visitor(), loaded_holder(), typed, VALUES, NO_EXTRA_LANES, frame_s=0)
    )
    tables = [frame.table for frame in frames if frame.table]
    assert len(tables) == 3
    assert "3 of 3" in tables[-1]
    assert "One &lt;b&gt;" in tables[-1]
    assert "Mean" in tables[-1]
    assert "Spread" in tables[-1]
    assert any("Prompt 2 of 3" in (frame.progress or "") for frame in frames)


def test_a_cancelled_list_keeps_the_rows_that_are_done():
    visitor = Visitor()
    frames = compare_handlers.run_list(
        visitor, loaded_holder(), "One\nTwo\nThree", VALUES, NO_EXTRA_LANES, frame_s=0
    )
    for frame in frames:
        if frame.table:
            break
    visitor.stop()
    rest = list(frames)
    assert "Cancelled" in rest[-1].progress
    assert all(frame.table is None for frame in rest)


def test_a_prompt_of_a_list_that_is_too_long_is_named():
    typed = "One\n" + "Two " * 30
    frames = compare_handlers.run_list(
        Visitor(), loaded_holder(ReplayEngine(limit=100)), typed, VALUES, NO_EXTRA_LANES, frame_s=0
    )
    assert "Prompt 2 of 2: The message has more than 100 tokens" in list(frames)[-1].progress


@pytest.mark.parametrize(
    ("typed", "said"), [("", "list is empty"), ("\n \n", "list is empty"), ("x\n" * 201, "200")]
)
def test_a_list_that_cannot_be_compared_is_explained(typed, said):
    with pytest.raises(sd.PromptError, match=said):
        compare_handlers.read_prompts(typed)


@pytest.mark.parametrize(
    ("data", "said"), [(b"\xff\xfe\x00", "UTF-8"), (b"x" * 1_000_001, "1 MB"), (b"", "empty")]
)
def test_a_file_that_is_no_list_is_explained(data, said):
    with pytest.raises(sd.PromptError, match=said):
        compare_handlers.read_prompts_file(data)
