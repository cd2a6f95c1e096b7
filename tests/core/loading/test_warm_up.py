"""Measurement of step costs and the rehearsal of rounds after it."""

import pytest
import torch

from specdec_core.bench.shapes import word_tokenizer
from specdec_core.loading import warm_up
from specdec_core.loading.step_times import StepTimer, StepTimes
from specdec_core.loading.warm_up import measured_costs, rehearse
from specdec_core.pair import LoadedPair
from specdec_core.runners import CudaGraphRunner
from specdec_core.sampling import DeviceSampling
from specdec_core.settings import Settings
from tests.support.recomputed_graphs import Recomputed
from tests.support.tiny_models import VOCAB, tiny_model


@pytest.fixture
def pair() -> LoadedPair:
    """A pair with graphs, as on a GPU."""
    target, drafter = (
        CudaGraphRunner(tiny_model("llama"), capture=Recomputed(), why_unfused="for comparison")
        for _ in range(2)
    )
    pair = LoadedPair(target, drafter, word_tokenizer(VOCAB), frozenset())
    # In the place where the pair of a GPU keeps it.
    pair.__dict__["sampling"] = DeviceSampling(torch.device("cpu"), VOCAB)
    return pair


class _Clock:
    """Counts up at each mark, and logs marks and readings."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def mark(self) -> int:
        self.log.append("mark")
        return len(self.log)

    def seconds(self, start: int, end: int) -> float:
        self.log.append("read")
        return float(end - start)


def test_a_repetition_is_queued_as_a_whole_before_a_time_is_read(pair):
    clock = _Clock()
    for runner in pair.runners:
        runner.clock = clock
    StepTimer(pair, 16, (1, 2, 3)).measure(2)
    # Target: one extra, then over 1, 2 and 3 rows. Drafter: 1 step before 2 rows, 2 before 3.
    once = ["mark"] * 2 * (1 + 3 + 3) + ["read"] * (3 + 3)
    assert clock.log == once * 2


def test_drafter_steps_are_timed_by_their_place_after_a_forward_of_the_target():
    times = StepTimes(draft_s=[4.0, 2.0, 1.0], target_s={1: 10.0, 2: 11.0})
    assert [times.drafting_s(gamma) for gamma in (0, 1, 2, 3, 5)] == [0, 4, 6, 7, 9]
    assert times.c_of(1) == 0.4
    assert times.c_of(2) == pytest.approx(0.3)
    assert times.drafter_s == pytest.approx(2.0)
    assert times.c == pytest.approx(0.2)
    assert StepTimes([], {1: 10.0}).c == 0


def test_a_timer_tells_the_places_apart(pair):
    class Growing(_Clock):
        """The duration of a forward is its number since the last over more than one row."""

        def seconds(self, start, end):
            return float(start)

    for runner in pair.runners:
        runner.clock = _Clock()
    pair.drafter.clock = Growing()
    timer = StepTimer(pair, 16, (1, 2, 4))
    timer.measure(1)
    # Marks 1; then 3, 5 and 7 are starts of steps: one before 2 rows, three before 4.
    assert timer.times.draft_s == [2.0, 5.0, 7.0]


@pytest.mark.parametrize(("device", "rows"), [("cuda", list(range(1, 10))), ("cpu", [1, 2, 3, 5, 9])])
def test_on_a_gpu_every_number_of_rows_is_measured(pair, monkeypatch, device, rows):
    measured = []

    def constant_times(pair, context, rows, *limits) -> StepTimes:
        measured.extend(rows)
        return StepTimes([0.1], dict.fromkeys(rows, 1.0))

    monkeypatch.setattr(warm_up, "step_times", constant_times)
    monkeypatch.setattr(warm_up, "prefill_s", lambda runner, tokens: 1.0)
    pair.target.device = torch.device(device)
    measured_costs(pair)
    assert measured == rows


def test_graphs_that_only_measurements_used_are_gone_after_the_rehearsal(pair):
    measured_costs(pair)
    assert all(any(step.then is None for step, _ in runner._graphs) for runner in pair.runners)
    rehearse(pair, Settings(gamma=2))
    for runner in pair.runners:
        assert runner.captured > 0
        assert all(step.then is not None for step, _ in runner._graphs)
