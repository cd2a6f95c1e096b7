"""Compare's lanes in turns and one by one, those of transformers' own code, and the line before them."""

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
from specdec_ui.compare.alternation import LiveRound, Sweep
from specdec_ui.compare.comparison import Comparison, to_json
from specdec_ui.compare.lanes import LaneChoice
from specdec_ui.compare.progress import progress_text
from specdec_ui.compare.run import LaneProgress, compare, with_margins
from specdec_ui.state.queue import TurnQueue
from specdec_ui.state.visitors import Visitor
from tests.support.comparisons import COUPLED, NGRAM, ONE_BY_ONE, VALUES, lane, made_up, run
from tests.support.llama_cpp_standin import events_of
from tests.support.replay import ReplayEngine, loaded_holder

PEERS = LaneChoice(peers=("generate", "assisted"), repeat_s=0.0)


class CountingEngine(ReplayEngine):
    def __init__(self):
        super().__init__()
        self.sessions = []

    def session(self):
        self.sessions.append(super().session())
        return self.sessions[-1]


class WithoutPeers(ReplayEngine):
    def peer_stream(self, messages, settings, *, peer, cancel=None):
        raise sd.SpecDecError("transformers cannot do this: ValueError: not here.")


def test_lanes_in_turns_say_what_they_say_alone(engine):
    settings = replace(COUPLED, max_new_tokens=24, temperature=1.0)
    one_by_one = replace(NGRAM, alternate=False)
    *_, alone = compare(engine, "Once upon a time", settings, one_by_one, threading.Event())
    steps = list(compare(engine, "Once upon a time", settings, NGRAM, threading.Event()))
    done = steps[-1]
    assert (alone.alternated, done.alternated) == (False, True)
    assert [each.text for each in done.lanes] == [each.text for each in alone.lanes]
    assert all(each.decoding_s > 0 for each in done.lanes)
    for at, each in enumerate(done.lanes):
        assert [s.round for s in steps if isinstance(s, LiveRound) and s.lane == at] == each.rounds


@pytest.mark.parametrize("alternate", [True, False])
def test_answers_are_repeated_for_an_interval(engine, alternate):
    settings = replace(COUPLED, max_new_tokens=12)
    choice = LaneChoice(alternate=alternate, repeat_s=1.5)
    *_, done = compare(engine, "Once upon a time", settings, choice, threading.Event())
    interval = done.interval(done.lanes[1])
    assert interval.low <= done.speedup(done.lanes[1]) <= interval.high
    assert max(len(each.emitted) for each in done.lanes) <= 12


def test_no_session_is_left_open():
    engine = CountingEngine()
    holder = loaded_holder(engine)
    run(Visitor(), holder, choice=NGRAM)
    frames = compare_handlers.run(Visitor(), holder, "Tell me a story.", VALUES, NGRAM, frame_s=0)
    next(frame for frame in frames if frame.race and frame.race.count("\n") > 4)
    frames.close()
    assert len(engine.sessions) > 6
    assert all(session.closed for session in engine.sessions)


def test_on_zero_gpu_every_lane_answers_once_as_a_whole(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    engine = ReplayEngine()
    frames = run(Visitor(), loaded_holder(engine), choice=LaneChoice())
    assert len(engine.prompts) == 4  # a warm-up and an answer of both
    assert "one after the other" in next(frame.headline for frame in frames if frame.headline)
    assert not any('"live"' in frame.race for frame in frames if frame.race)


def test_a_race_grows_line_by_line_and_ends_with_its_figures():
    frames = run(Visitor(), loaded_holder(), choice=NGRAM)
    races = [frame.race for frame in frames if frame.race]
    assert len(races) > 5
    assert all(after.startswith(before) for before, after in itertools.pairwise(races))
    first, *_, last = map(json.loads, races[-1].splitlines())
    assert first["live"] is True
    assert (last["race"], len(last["lanes"])) == (first["race"], 3)
    assert all(facts["seconds"] > 0 for facts in last["lanes"])


def test_progress_says_what_is_decoded_and_what_is_known_so_far():
    frames = run(Visitor(), loaded_holder(), choice=NGRAM)
    assert any("In turns: " in (frame.progress or "") for frame in frames if frame.race)
    known = sd.Ratio(1.42, 1.3, 1.5, 12)
    words = {
        "Plain decoding: 1 token so far.": LaneProgress("plain", 0, 2, 1, 50),
        "Plain decoding: 2 tokens so far.": LaneProgress("plain", 0, 2, 2, 50),
        "In turns: 3 and 5 tokens so far.": Sweep((3, 5), None, None),
        "Answering again, for a more certain speedup.": Sweep((30, 30), None, 0.1),
        "Answering again, for a more certain speedup: 1.42× (1.30–1.50) so far.": Sweep((9, 9), known, 0.5),
    }
    assert [progress_text(step) for step in words.values()] == list(words)


def test_lanes_of_transformers_join_the_race_at_its_end():
    frames = run(Visitor(), loaded_holder(), choice=PEERS)
    *_, text = (frame.race for frame in frames if frame.race)
    lines = [json.loads(line) for line in text.splitlines()]
    lanes = [len(line["lanes"]) for line in lines if "lanes" in line]
    assert lanes == [2, 4]
    emitted = {line["lane"]: line["emitted"] for line in lines if "lane" in line}
    assert emitted == dict.fromkeys(range(4), emitted[0])


def test_a_comparison_in_turns_is_cancelled_within_a_round():
    visitor, holder = Visitor(), loaded_holder()
    frames = compare_handlers.run(visitor, holder, "Tell me a story.", VALUES, NGRAM, frame_s=0)
    next(frame for frame in frames if frame.race and frame.race.count("\n") > 4)
    visitor.stop()
    rest = list(frames)
    assert "Cancelled" in rest[-1].progress
    assert all(not frame.headline for frame in rest)
    assert sum(bool(frame.race) for frame in rest) == 0
    assert holder.current.answers == len(holder.measuring) == 0


def test_two_comparisons_in_turns_of_one_engine_end(engine):
    settings = replace(COUPLED, max_new_tokens=12)
    texts = []

    def watch():
        *_, done = compare(engine, "Once upon a time", settings, NGRAM, threading.Event())
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
    headline = compare_result.headline(done)
    assert headline.count('data-peer="true"') == 2
    assert "cannot pause, so they answered whole, in turn with plain answers, too few for an" in headline
    assert "assisted generation tokens/s" in compare_result.table([done], 1)


def test_where_a_lane_parts_that_should_not_the_margin_is_looked_up(engine):
    settings = replace(COUPLED, temperature=0.0, max_new_tokens=12)
    *_, done = compare(engine, "Once upon a time", settings, ONE_BY_ONE, threading.Event())
    assert done.margins == {}
    *_, other = compare(engine, "The end", settings, ONE_BY_ONE, threading.Event())
    parted = replace(done, lanes=(done.baseline, replace(done.lanes[1], rounds=other.lanes[1].rounds)))
    assert parted.divergence(parted.lanes[1]) is not None
    looked_up = with_margins(engine, parted)
    assert looked_up.margins["model"] > 0
    assert "two best scores there are" in compare_words.sameness(looked_up, looked_up.lanes[1])


def test_one_by_one_a_round_quicker_than_a_plain_step_is_said_to_be_impossible():
    assert any("which it cannot" in note for note in compare_words.notes(made_up(slower=0.5)))
    assert not any("which it cannot" in note for note in compare_words.notes(made_up(slower=1.5)))


def test_a_peer_that_cannot_run_is_left_out_and_the_page_says_why():
    frames = run(Visitor(), loaded_holder(WithoutPeers()), choice=PEERS)
    headline = next(frame.headline for frame in frames if frame.headline)
    assert headline.count("was left out") == 2
    assert "not here" in headline
    assert headline.count('class="result"') == 1


def test_llama_cpp_without_a_file_is_left_out_and_the_reason_is_said(engine, llama_cpp):
    choice = LaneChoice(peers=("llama_cpp",), repeat_s=0.0)
    *_, done = compare(engine, "Once upon a time", COUPLED, choice, threading.Event())
    assert [each.name for each in done.lanes] == ["plain", "model"]
    (reason,) = done.left_out
    assert reason.startswith("llama.cpp was left out: ")
    assert "GGUF file" in reason


@pytest.mark.parametrize("same", [True, False])
def test_llama_cpp_is_a_lane_whose_text_may_differ(engine, llama_cpp, monkeypatch, same):
    monkeypatch.setitem(engine.pair.__dict__, "gguf", "model.gguf")
    settings = replace(COUPLED, temperature=0.0, max_new_tokens=16)
    ids = engine.generate([{"role": "user", "content": "Once"}], replace(settings, gamma=0)).token_ids
    llama_cpp.events = events_of(ids if same else [*ids[:3], *reversed(ids[3:])], "limit")
    choice = LaneChoice(peers=("llama_cpp",), repeat_s=0.0)
    *_, done = compare(engine, "Once", settings, choice, threading.Event())
    peer = done.lanes[-1]
    assert (peer.name, peer.title, peer.is_peer) == ("llama_cpp", "llama.cpp", True)
    assert not done.same_text_promised(peer)
    assert (done.divergence(peer) is None) == same
    assert ("happen to be the same" if same else "rounds in its own way") in compare_words.sameness(
        done, peer
    )
    assert "GGUF" in compare_words.explanation(done, peer)
    assert done.speedup(peer) > 0


def test_only_our_own_answers_are_kept_as_traces(engine):
    visitor = Visitor()
    run(visitor, loaded_holder(engine), choice=replace(PEERS, peers=("generate",)))
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
