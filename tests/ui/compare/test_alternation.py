"""Alternating lanes: their order, their end, and a speedup that a changing load does not bias."""

import math
import random
import threading
from dataclasses import replace

import pytest

from specdec_ui.compare.alternation import STRETCH_S, Alternation, LiveRound, Sweep
from specdec_ui.compare.speedup import NARROW, interval_of
from tests.support.loaded_machine import DRAFTED, PLAIN, Machine, Step, lane

SPEEDUP = 1.4


def alternation(machine, *lanes, **options):
    """An alternation of named lanes, by default the plain and the drafted one."""
    named = lanes or (("plain", PLAIN), ("drafted", DRAFTED))
    begins = [lane(machine, name, steps) for name, steps in named]
    return Alternation(begins, options.pop("cancel", threading.Event()), clock=machine.clock, **options)


def sweeps_of(steps):
    """The lanes of each sweep's rounds, in order, each lane named once a stretch."""
    sweeps = [[]]
    for step in steps:
        if isinstance(step, Sweep):
            sweeps.append([])
        elif not sweeps[-1] or sweeps[-1][-1] != step.lane:
            sweeps[-1].append(step.lane)
    return sweeps[:-1]


def holds(interval):
    """True if the true speedup is in the interval, whose width may be 0."""
    return interval.low - 1e-9 <= SPEEDUP <= interval.high + 1e-9


def toggling(seed, slow=2.0):
    """A load that comes and goes after random times, as other programs do."""
    rng = random.Random(seed)
    changes = [0.0]
    while changes[-1] < 30:
        changes.append(changes[-1] + rng.uniform(0.2, 1.2))

    def load(now):
        return slow if sum(change <= now for change in changes) % 2 else 1.0

    return load


def test_every_other_sweep_is_in_reverse_order():
    steps = alternation(Machine()).rounds()
    assert sweeps_of(steps)[:4] == [[0, 1], [1, 0], [0, 1], [1, 0]]


def test_three_lanes_are_swept_forth_and_back_from_the_first_one_given():
    lanes = (("plain", PLAIN), ("drafted", DRAFTED), ("n-gram", PLAIN))
    steps = alternation(Machine(), *lanes, first=1).rounds()
    assert sweeps_of(steps)[:3] == [[1, 2, 0], [0, 2, 1], [1, 2, 0]]


def test_a_stretch_is_short_and_leaves_out_prefill_and_the_first_round_after_a_switch():
    steps = []
    for step in alternation(Machine()).rounds():
        if isinstance(step, LiveRound) and step.lane == 1:
            break
        steps.append(step)
    counted = [step.round for step in steps if step.round.index > 1]
    assert sum(rnd.seconds for rnd in counted) == pytest.approx(STRETCH_S, abs=0.004)


def test_without_load_the_speedup_is_exact_and_the_measuring_ends_soon():
    machine = Machine()
    run = alternation(machine, repeat_s=1000.0)
    list(run.rounds())
    assert run.speedups[0].median == pytest.approx(SPEEDUP)
    assert interval_of(run.speedups[0]).half_width < 1e-6
    assert machine.now < 2
    assert run.answered


def test_the_lane_that_ends_first_answers_again_until_the_other_ends_and_only_first_answers_are_yielded():
    machine = Machine(load=toggling(3, slow=4.0))
    run = alternation(machine)
    steps = list(run.rounds())
    assert machine.begun[:3] == ["plain", "drafted", "drafted"]
    for at, planned in enumerate((PLAIN, DRAFTED)):
        yielded = [step.round for step in steps if isinstance(step, LiveRound) and step.lane == at]
        assert yielded == run.answers[at]
        assert len(yielded) == 1 + len(planned)
    assert sorted(machine.closed) == sorted(machine.begun)


def test_an_uncertain_speedup_is_measured_until_the_time_is_spent():
    rng = random.Random(0)
    machine = Machine(load=lambda now: rng.choice([1.0, 30.0]))
    run = alternation(machine, repeat_s=60.0)
    list(run.rounds())
    assert interval_of(run.speedups[0]).half_width > NARROW
    assert 60 <= machine.now < 61


def test_without_time_for_repetitions_every_lane_answers_once():
    machine = Machine(load=toggling(1))
    run = alternation(machine, repeat_s=0.0)
    list(run.rounds())
    assert machine.begun == ["plain", "drafted"]
    assert run.speedups[0].median == pytest.approx(SPEEDUP, rel=0.05)


def test_short_answers_are_repeated_until_they_fill_stretches():
    run = alternation(Machine(), ("plain", PLAIN[:6]), ("drafted", DRAFTED[:2]), repeat_s=30.0)
    list(run.rounds())
    assert run.speedups[0].median == pytest.approx((5 / 2) / 2)
    assert interval_of(run.speedups[0]) is not None


@pytest.mark.parametrize("empty", [("plain",), ("drafted",), ("plain", "drafted")])
def test_a_lane_that_ends_at_once_ends_the_measuring(empty):
    machine = Machine()
    lanes = [
        (name, [] if name in empty else steps) for name, steps in (("plain", PLAIN), ("drafted", DRAFTED))
    ]
    run = alternation(machine, *lanes)
    list(run.rounds())
    assert run.answered
    assert run.speedups == [None]
    assert machine.begun == ["plain", "drafted"]
    assert [len(answer) for answer in run.answers] == [1 + len(steps) for _, steps in lanes]


def test_a_first_round_that_is_slow_after_every_switch_does_not_count():
    machine = Machine()
    last = []

    def cold(name, steps):
        begin = lane(machine, name, steps)

        def slower():
            for rnd in begin():
                if last[-1:] != [name]:
                    machine.work(1.0)
                    rnd = replace(rnd, verify_s=1.0)
                last.append(name)
                yield rnd

        return slower

    run = Alternation(
        [cold("plain", PLAIN), cold("drafted", DRAFTED)], threading.Event(), clock=machine.clock
    )
    list(run.rounds())
    assert run.speedups[0].median == pytest.approx(SPEEDUP)


def test_cancelled_before_all_have_answered_it_stops_within_a_round():
    machine, cancel = Machine(), threading.Event()
    run = alternation(machine, cancel=cancel)
    steps = run.rounds()
    for step in steps:
        if isinstance(step, LiveRound) and step.lane == 1:
            break
    cancel.set()
    assert [step for step in steps if isinstance(step, LiveRound)] == []
    assert not run.answered
    assert sorted(machine.closed) == sorted(machine.begun)


def test_cancelled_while_answering_again_it_keeps_what_was_measured():
    cancel = threading.Event()
    rng = random.Random(0)
    run = alternation(Machine(load=lambda now: rng.choice([1.0, 30.0])), cancel=cancel, repeat_s=1000.0)
    for step in run.rounds():
        if isinstance(step, Sweep) and step.share is not None:
            cancel.set()
    assert run.answered
    assert run.speedups[0] is not None


def test_closed_in_a_stretch_it_closes_every_lane():
    machine = Machine()
    steps = alternation(machine).rounds()
    next(step for step in steps if isinstance(step, LiveRound) and step.lane == 1)
    steps.close()
    assert sorted(machine.closed) == ["drafted", "plain"]


# One lane after the other, these loads would give speedups from 0.5 to 4.4 in place of 1.4.
LOADS = {
    "a steady rise": lambda now: 1 + 2 * now,
    "a steady fall": lambda now: 1 + 3 * math.exp(-now),
    "waves": lambda now: 1.5 + math.sin(2 * math.pi * now / 1.7),
    "one long disturbance": lambda now: 3.0 if 0.4 < now < 1.1 else 1.0,
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_a_load_that_drifts_does_not_bias_the_speedup(load):
    run = alternation(Machine(load))
    list(run.rounds())
    interval = interval_of(run.speedups[0])
    assert holds(interval)
    assert interval.median == pytest.approx(SPEEDUP, rel=NARROW)


def test_under_loads_that_come_and_go_the_interval_has_the_true_speedup_in_it():
    """One lane after the other, these loads would give speedups from 1.0 to 2.8."""
    hits = 0
    for seed in range(20):
        run = alternation(Machine(toggling(seed)))
        list(run.rounds())
        interval = interval_of(run.speedups[0])
        hits += holds(interval)
        assert interval.median == pytest.approx(SPEEDUP, rel=0.05)
    assert hits >= 18


@pytest.mark.parametrize(("load", "tolerance"), [(lambda now: 1.0, 1e-6), (LOADS["waves"], NARROW)])
def test_stretches_with_and_without_drafts_count_for_what_they_cost(load, tolerance):
    """The median stretch of n-gram drafting has no draft; the few with drafts make the speedup."""
    copied = [Step(5, 0.005, 7)] * 12
    steps = [*[Step(1, 0.004)] * 60, *copied, *[Step(1, 0.004)] * 60]
    true = (120 + 5 * 12) * 0.004 / (120 * 0.004 + 12 * 0.005)
    run = alternation(Machine(load), ("plain", PLAIN), ("n-gram", steps))
    list(run.rounds())
    assert run.speedups[0].median == pytest.approx(true, rel=tolerance)
