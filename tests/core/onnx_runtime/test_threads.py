"""The number of threads follows the load of the machine, at load and while forwards are slow for long."""

import pytest
import torch
from onnxruntime import SessionOptions

import specdec_core as sd
from specdec_core.loading import assemble
from specdec_core.onnx_runtime import thread_count
from specdec_core.onnx_runtime.pace import Pace
from specdec_core.onnx_runtime.thread_count import measured_threads
from specdec_core.onnx_runtime.threads import choose_threads
from specdec_core.runners.onnx import runner as onnx_runner
from specdec_core.runners.onnx.runner import OnnxRunner
from tests.support.tiny_models import uneven_model

IDS = torch.arange(20)


@pytest.fixture
def most(monkeypatch):
    """Lets torch have so many threads that a choice exists, without their computing anything."""

    def set_most(count: int) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: count)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: None)

    return set_most


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ({1: 4.0, 4: 2.0, 7: 1.5, 8: 1.0}, 8),
        ({1: 4.0, 4: 2.0, 7: 1.5, 8: 9.0}, 7),  # one core is busy
        ({1: 1.0, 4: 2.0, 7: 3.0, 8: 9.0}, 1),
        ({1: 1.0, 4: 0.98, 7: 0.97, 8: 0.96}, 1),  # not worth the cores
    ],
)
def test_the_fastest_number_is_chosen_and_more_only_where_they_are_worth_it(times, wanted, most, monkeypatch):
    most(8)
    monkeypatch.setattr(thread_count, "_probed_s", times.__getitem__)
    assert measured_threads() == wanted


def test_one_thread_is_not_measured(most, monkeypatch):
    most(1)
    monkeypatch.setattr(thread_count, "_probed_s", lambda threads: pytest.fail("measured"))
    assert measured_threads() == 1


def test_the_probe_runs_on_as_many_threads_as_it_is_asked_for():
    options = SessionOptions()
    choose_threads(options, 3)
    assert options.intra_op_num_threads == 3
    assert thread_count._probed_s(1) > 0


def test_a_loaded_pair_says_what_was_chosen(pair_folders, monkeypatch, most):
    most(2)
    monkeypatch.setattr(assemble, "measured_threads", lambda: 1)
    engine = sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    assert engine.info.threads == engine.pair.target.threads == engine.pair.drafter.threads == 1


# While answers are made


def test_slow_forwards_count_when_they_are_many_more_than_the_others():
    pace = Pace()
    pace.note(1, 1.0)
    for _ in range(99):
        pace.note(1, 2.5)
    assert not pace.slow
    for _ in range(5):
        pace.note(1, 1.1)
    for _ in range(6):
        pace.note(1, 2.5)
    assert pace.slow


def test_forwards_over_more_rows_are_not_slow_ones():
    pace = Pace()
    pace.note(1, 1.0)
    for _ in range(300):
        pace.note(5, 3.0)
    assert not pace.slow


def test_a_runner_that_is_slow_for_long_computes_the_same_on_the_threads_that_are_fastest_then(
    most, monkeypatch
):
    most(2)
    monkeypatch.setattr(onnx_runner, "measured_threads", lambda: 1)
    runner = OnnxRunner(uneven_model("llama"))
    cache = runner.new_cache()
    wanted = runner.forward(cache, IDS).clone()
    runner.settle()
    assert runner.threads == 2
    for _ in range(200):
        runner._pace.note(1, 1.0)
    runner._pace._fastest[1] = 0.1
    for _ in range(200):
        runner._pace.note(1, 1.0)
    session = runner.session
    runner.settle()
    assert runner.threads == 1
    assert runner.session is not session
    cache.rewind(0)
    assert torch.equal(runner.forward(cache, IDS), wanted)
    assert runner.forward(cache, IDS[:1]).shape[0] == 1
    assert all(call.session is runner.session for call in cache.calls.values())


def test_fewer_threads_than_there_might_be_are_tried_again_after_a_while(most, monkeypatch):
    most(2)
    monkeypatch.setattr(onnx_runner, "measured_threads", lambda: 2)
    runner = OnnxRunner(uneven_model("llama"), threads=1)
    runner.settle()
    assert runner.threads == 1
    monkeypatch.setattr(onnx_runner, "_TRIED_AGAIN_S", 0.0)
    runner.settle()
    assert runner.threads == 2


def test_before_an_answer_a_pair_settles_and_says_so(pair_folders, monkeypatch, most):
    most(2)
    monkeypatch.setattr(assemble, "measured_threads", lambda: 1)
    engine = sd.Engine.load(target=pair_folders[0], device="cpu")
    monkeypatch.setattr(onnx_runner, "measured_threads", lambda: 2)
    monkeypatch.setattr(onnx_runner, "_TRIED_AGAIN_S", 0.0)
    engine.generate("Once", sd.Settings(max_new_tokens=3, gamma=0))
    assert engine.info.threads == 2
