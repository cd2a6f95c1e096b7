"""Compare's live mode, its lanes of transformers' own code, the line before it, and what is said of them."""

import itertools
import json
import threading
from dataclasses import replace

import pytest

import specdec_core as sd
from specdec_ui.compare import (
    handlers as compare_handlers,
    result as compare_result,
    words as compare_words,
)
from specdec_ui.compare.comparison import Comparison, to_json
from specdec_ui.compare.run import LaneChoice, LiveRound, compare, with_margins
from specdec_ui.state.queue import TurnQueue
from specdec_ui.state.visitors import Visitor
from tests.support.comparisons import COUPLED, VALUES, lane, made_up, run
from tests.support.replay import ReplayEngine, loaded_holder

LIVE = LaneChoice(ngram=True, live=True)
PEERS = LaneChoice(peers=("generate", "assisted"))


class WithoutPeers(ReplayEngine):
    def peer_stream(self, messages, settings, *, assisted, cancel=None):
        raise sd.SpecDecError("transformers cannot do this: ValueError: not here.")


def test_live_lanes_take_turns_and_say_what_they_say_alone(engine):
    settings = replace(COUPLED, max_new_tokens=24, temperature=1.0)
    *_, alone = compare(engine, "Once upon a time", settings, LaneChoice(ngram=True), threading.Event())
    steps = list(compare(engine, "Once upon a time", settings, LIVE, threading.Event()))
    assert [step.lane for step in steps if isinstance(step, LiveRound)][:6] == [0, 1, 2, 0, 1, 2]
    done = steps[-1]
    assert done.live
    assert [each.text for each in done.lanes] == [each.text for each in alone.lanes]
    assert all(each.decoding_s > 0 for each in done.lanes)


def test_a_live_race_grows_line_by_line_and_ends_with_its_figures():
    frames = run(Visitor(), loaded_holder(), choice=LIVE)
    races = [frame.race for frame in frames if frame.race]
    assert len(races) > 5
    assert all(after.startswith(before) for before, after in itertools.pairwise(races))
    first, *_, last = map(json.loads, races[-1].splitlines())
    assert first["live"] is True
    assert (last["race"], len(last["lanes"])) == (first["race"], 3)
    assert all(facts["seconds"] > 0 for facts in last["lanes"])
    assert "one after the other" in next(frame.headline for frame in frames if frame.headline)


def test_a_live_comparison_is_cancelled_within_a_round():
    visitor, holder = Visitor(), loaded_holder()
    frames = compare_handlers.run(visitor, holder, "Tell me a story.", VALUES, LIVE, frame_s=0)
    for frame in frames:
        if frame.race and frame.race.count("\n") > 4:
            break
    visitor.stop()
    rest = list(frames)
    assert "Cancelled" in rest[-1].progress
    assert all(not frame.headline for frame in rest)
    assert sum(bool(frame.race) for frame in rest) == 0
    assert holder.current.answers == len(holder.measuring) == 0


def test_two_live_comparisons_of_one_engine_end(engine):
    settings = replace(COUPLED, max_new_tokens=12)
    texts = []

    def watch():
        *_, done = compare(engine, "Once upon a time", settings, LIVE, threading.Event())
        texts.append([each.text for each in done.lanes])

    threads = [threading.Thread(target=watch, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(texts) == 2
    assert texts[0] == texts[1]


def test_the_lanes_of_transformers_are_measured_and_their_drafts_not_invented(engine):
    settings = replace(COUPLED, temperature=0.0, max_new_tokens=16)
    *_, done = compare(engine, "Once upon a time", settings, PEERS, threading.Event())
    assert [each.name for each in done.lanes] == ["plain", "model", "generate", "assisted"]
    for each in done.lanes[2:]:
        assert done.divergence(each) is None
        assert done.speedup(each) > 0
        assert "transformers' own" in compare_words.explanation(done, each)
    told = json.loads(json.dumps(to_json(done)))["lanes"][3]
    assert told["stats"]["acceptance_rate"] is None
    assert told["stats"]["accepted"] is None
    assert told["stats"]["tokens_per_second"] > 0
    assert compare_result.headline(done).count('data-peer="true"') == 2
    assert "assisted generation tokens/s" in compare_result.table([done], 1)


def test_where_a_lane_parts_that_should_not_the_margin_is_looked_up(engine):
    settings = replace(COUPLED, temperature=0.0, max_new_tokens=12)
    *_, done = compare(engine, "Once upon a time", settings, LaneChoice(), threading.Event())
    assert done.margins == {}
    *_, other = compare(engine, "The end", settings, LaneChoice(), threading.Event())
    parted = replace(done, lanes=(done.baseline, replace(done.lanes[1], rounds=other.lanes[1].rounds)))
    assert parted.divergence(parted.lanes[1]) is not None
    looked_up = with_margins(engine, parted)
    assert looked_up.margins["model"] > 0
    assert "two best scores there are" in compare_words.sameness(looked_up, looked_up.lanes[1])


def test_a_round_quicker_than_a_plain_step_is_said_to_be_impossible():
    assert any("which it cannot" in note for note in compare_words.notes(made_up(slower=0.5)))
    assert compare_words.notes(made_up(slower=1.5)) == []


def test_a_peer_that_cannot_run_is_left_out_and_the_page_says_why():
    frames = run(Visitor(), loaded_holder(WithoutPeers()), choice=PEERS)
    headline = next(frame.headline for frame in frames if frame.headline)
    assert headline.count("was left out") == 2
    assert "not here" in headline
    assert headline.count('class="result"') == 1


def test_only_our_own_answers_are_kept_as_traces(engine):
    visitor = Visitor()
    run(visitor, loaded_holder(engine), choice=LaneChoice(peers=("generate",)))
    assert len(visitor.traces) == 2


@pytest.mark.parametrize(
    ("draft_s", "verify_s", "rest_s", "term"),
    [(0.1, 0.01, 0.0, "drafting"), (0.0, 0.1, 0.0, "verifying"), (0.0, 0.01, 0.1, "the rest")],
)
def test_below_1_the_term_that_weighs_most_is_named(draft_s, verify_s, rest_s, term):
    done = made_up()
    drafted = done.drafting_lanes[0]
    rounds = [
        replace(rnd, draft_s=draft_s, verify_s=verify_s, overhead_s=rest_s)
        for rnd in lane(text="a b c d e f " * 12).rounds
    ]
    stats = sd.summarize(rounds, time_to_first_token_s=0.0, prompt_tokens=1)
    stats = replace(stats, acceptance_rate=0.9, block_efficiency=4.5)  # it is not acceptance that is lacking
    drafted = replace(drafted, rounds=[*rounds[:-1], replace(rounds[-1], stats=stats)])
    assert f"weighs most is {term}" in compare_words.explanation(
        Comparison("x", (done.baseline, drafted)), drafted
    )


def test_tickets_of_a_queue_know_their_position_and_may_leave():
    queue = TurnQueue()
    with queue.enter() as first:
        with queue.enter() as second, queue.enter() as third:
            assert [ticket.ahead for ticket in (first, second, third)] == [0, 1, 2]
        with queue.enter() as fourth:
            assert fourth.ahead == 1
    assert len(queue) == 0
