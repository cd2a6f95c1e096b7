"""The number of threads follows the load of the machine, at load and while forwards are slow for long."""

import sys
import weakref

import pytest
import torch
from onnxruntime import SessionOptions

import specdec_core as sd
from specdec_core import pair as pair_module
from specdec_core.loading import pair_runners
from specdec_core.onnx_runtime import thread_count
from specdec_core.onnx_runtime.pace import Pace
from specdec_core.onnx_runtime.thread_count import measured_threads
from specdec_core.onnx_runtime.threads import choose_threads, most_threads, on_one_thread
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
    monkeypatch.setattr(thread_count, "_probed_s", lambda threads, most: times[threads])
    assert measured_threads(8) == wanted


def test_one_thread_is_not_measured(monkeypatch):
    monkeypatch.setattr(thread_count, "_probed_s", lambda *_: pytest.fail("measured"))
    assert measured_threads(1) == 1


def test_where_onnx_runtime_cannot_be_used_all_threads_are_torch_s(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "specdec_core.onnx_runtime.session")
    assert measured_threads(6) == 6


@pytest.mark.parametrize("most", [2, 16, 64])
def test_products_of_the_probe_are_large_enough_for_all_threads(most):
    """ONNX Runtime's kernels give a thread 65,536 multiplications at least."""
    _, weights = thread_count._probe(most)
    assert all(weight.numel() >= 65_536 * most for weight in weights.values())


def test_the_number_outside_is_known_while_torch_computes_on_one_thread(most):
    most(3)

    def within(depth):
        assert most_threads() == 3
        return on_one_thread(within, depth - 1) if depth else "done"

    assert on_one_thread(within, 2) == "done"
    assert most_threads() == 3
    with pytest.raises(ZeroDivisionError):
        on_one_thread(lambda _: 1 / 0, None)
    most(5)
    assert most_threads() == 5


def test_the_probe_runs_on_as_many_threads_as_it_is_asked_for():
    options = SessionOptions()
    choose_threads(options, 3)
    assert options.intra_op_num_threads == 3
    assert thread_count._probed_s(1, 2) > 0


def test_a_loaded_pair_says_what_was_chosen(pair_folders, monkeypatch, most):
    most(2)
    monkeypatch.setattr(pair_runners, "measured_threads", lambda most: 1)
    engine = sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")
    assert engine.info.threads == engine.pair.target.threads == engine.pair.drafter.threads == 1


# While answers are made


def test_slow_forwards_count_when_they_are_many_more_than_the_others():
    pace = Pace()
    pace.note(1, 9, 1.0)
    for _ in range(99):
        pace.note(1, 9, 2.5)
    assert not pace.slow
    for _ in range(5):
        pace.note(1, 9, 1.1)
    for _ in range(6):
        pace.note(1, 9, 2.5)
    assert pace.slow


@pytest.mark.parametrize(("rows", "end"), [(5, 9), (1, 900)])
def test_forwards_over_more_rows_or_a_longer_context_are_not_slow_ones(rows, end):
    pace = Pace()
    pace.note(1, 9, 1.0)
    for _ in range(300):
        pace.note(rows, end, 3.0)
    assert not pace.slow


def _slow(runner: OnnxRunner) -> None:
    runner._pace.note(1, 9, 1.0)
    for _ in range(200):
        runner._pace.note(1, 9, 9.0)


def test_a_runner_computes_the_same_on_another_number_of_threads_and_frees_its_old_session(most):
    most(2)
    runner = OnnxRunner(uneven_model("llama"))
    cache, idle = runner.new_cache(), runner.new_cache()

    def logits(cache) -> list[torch.Tensor]:
        cache.rewind(0)
        return [runner.forward(cache, part).clone() for part in IDS.split([1, 5, 1, 13])]

    wanted = logits(cache)
    logits(idle)
    assert len(cache.calls) == len(idle.calls) == 3
    old = weakref.ref(runner.session)
    runner.use_threads(1)
    assert (runner.threads, old()) == (1, None)
    for got in (logits(cache), logits(idle)):
        assert all(map(torch.equal, got, wanted))


def test_a_switch_that_fails_leaves_the_runner_as_it_was(most, monkeypatch):
    most(2)
    runner = OnnxRunner(uneven_model("llama"))
    wanted = runner.forward(runner.new_cache(), IDS).clone()
    opened = onnx_runner.open_session

    def fails_on_one(*arguments, threads):
        if threads == 1:
            raise RuntimeError("no memory for it")
        return opened(*arguments, threads=threads)

    monkeypatch.setattr(onnx_runner, "open_session", fails_on_one)
    runner.use_threads(1)
    assert runner.threads == 2
    assert torch.equal(runner.forward(runner.new_cache(), IDS), wanted)


@pytest.fixture
def settled(pair_folders, monkeypatch, most) -> sd.Engine:
    """A pair on one of two threads; the next measurement says two."""
    most(2)
    monkeypatch.setattr(pair_runners, "measured_threads", lambda most: 1)
    monkeypatch.setattr(pair_module, "measured_threads", lambda most: 2)
    return sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="cpu")


SHORT = sd.Settings(max_new_tokens=3, gamma=0)


def test_before_an_answer_a_pair_whose_forwards_were_slow_settles_and_says_so(settled):
    settled.generate("Once", SHORT)
    assert settled.info.threads == 1
    _slow(settled.pair.target)
    settled.generate("Once", SHORT)
    assert settled.info.threads == settled.pair.drafter.threads == 2


def test_fewer_threads_than_there_might_be_are_tried_again_after_a_while(settled, monkeypatch):
    monkeypatch.setattr(onnx_runner, "_TRIED_AGAIN_S", 0.0)
    settled.generate("Once", SHORT)
    assert settled.info.threads == 2


def test_nothing_changes_while_another_answer_is_in_progress(settled):
    rounds = settled.stream("Once", sd.Settings(max_new_tokens=20, gamma=0))
    next(rounds)
    _slow(settled.pair.target)
    settled.generate("Once", SHORT)
    assert settled.pair.target.threads == 1
    rounds.close()
    _slow(settled.pair.target)
    settled.generate("Once", SHORT)
    assert settled.pair.target.threads == 2
