"""Graphs of a runner: captured between rounds, dropped after measurements, given up where memory runs out.

Plain calls replace capture here.
"""

import pytest
import torch

from specdec_core.runners import CudaGraphRunner, EagerRunner, Step, runner_for, static
from specdec_core.runners.host_reads import HostReadError
from specdec_core.runners.lean_forward import UnsupportedError
from specdec_core.runners.static import StaticRunner
from tests.support.recomputed_graphs import Recomputed
from tests.support.tiny_models import VOCAB, tiny_model

UNFUSED = "for comparison"
BUCKET = 64


def _best(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(-1)


STEPS = [Step(rows, 0, _best) for rows in (1, 2, 3)]


@pytest.fixture
def ids(monkeypatch) -> torch.Tensor:
    """Longer than two buckets."""
    monkeypatch.setattr(static, "FIRST_BUCKET", BUCKET)
    return torch.randint(0, VOCAB, (200,), generator=torch.Generator().manual_seed(3))


def _runner(capture: Recomputed) -> CudaGraphRunner:
    return CudaGraphRunner(tiny_model("llama"), capture=capture, why_unfused=UNFUSED)


def _wanted(ids: torch.Tensor) -> list[int]:
    runner = StaticRunner(tiny_model("llama"), why_unfused=UNFUSED)
    return runner.forward(runner.new_cache(), ids).argmax(-1).tolist()


def _joined(parts: list[list[int]]) -> list[int]:
    return [token for part in parts for token in part]


def test_prepared_steps_are_captured_and_later_forwards_capture_nothing(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    runner.prepare(cache, STEPS, 24)
    captured = capture.captures
    got = [runner.forward(cache, part, then=_best).tolist() for part in ids[20:26].split([1, 2, 3])]
    assert capture.captures == captured
    assert _joined(got) == _wanted(ids[:26])[20:]


def test_the_next_bucket_is_captured_before_a_forward_reaches_it(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[: BUCKET - 2])
    runner.prepare(cache, STEPS, BUCKET + 1)
    captured = capture.captures
    parts = ids[BUCKET - 2 : BUCKET + 5].split([1, 1, 3, 2])
    got = [runner.forward(cache, part, then=_best).tolist() for part in parts]
    assert capture.captures == captured
    assert _joined(got) == _wanted(ids[: BUCKET + 5])[BUCKET - 2 :]


def test_what_is_ready_is_not_captured_again(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    for end in (24, 30, 40):
        runner.prepare(cache, STEPS, end)
        captured = capture.captures
        runner.prepare(cache, STEPS, end)
        assert capture.captures == captured
    assert capture.captures == runner.captured


def test_preparing_leaves_what_the_cache_holds(ids):
    runner = _runner(Recomputed())
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    other = runner.new_cache()
    runner.forward(other, ids[100:130])
    runner.prepare(cache, STEPS, 22)
    runner.prepare(other, STEPS, BUCKET + 2)
    assert (cache.length, other.length) == (20, 30)
    assert runner.forward(cache, ids[20:26]).argmax(-1).tolist() == _wanted(ids[:26])[20:]


def test_an_empty_cache_can_be_prepared(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.prepare(cache, STEPS, 30)
    captured = capture.captures
    runner.forward(cache, ids[:20])
    assert runner.forward(cache, ids[20:23], then=_best).tolist() == _wanted(ids[:23])[20:]
    assert capture.captures == captured


def test_nothing_is_prepared_past_the_context(ids):
    capture = Recomputed()
    runner = _runner(capture)
    runner.context_length = BUCKET
    cache = runner.new_cache()
    runner.forward(cache, ids[: BUCKET - 1])
    runner.prepare(cache, STEPS, BUCKET + 8)
    assert {bucket for _, bucket in runner._graphs} == {BUCKET}


def test_graphs_of_bare_forwards_are_dropped_and_others_stay(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    runner.forward(cache, ids[20:22])
    runner.forward(cache, ids[22:24], then=_best)
    runner.drop_bare_graphs()
    assert runner.captured == 1
    captured = capture.captures
    runner.forward(cache, ids[24:26], then=_best)
    assert capture.captures == captured


@pytest.mark.parametrize("where", ["capture", "replay"])
def test_where_memory_runs_out_for_a_graph_the_forward_goes_on_without(ids, where):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    capture.fail(where, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MB."))
    got = [runner.forward(cache, part, then=_best).tolist() for part in ids[20:26].split([2, 2, 2])]
    assert _joined(got) == _wanted(ids[:26])[20:]
    assert (runner.captured, runner.captures) == (0, False)
    assert runner.reason is not None
    assert runner.reason.startswith("memory ran out for a graph, and none is used since: OutOfMemoryError")


def test_where_memory_runs_out_while_preparing_nothing_is_raised(ids):
    capture = Recomputed()
    runner = _runner(capture)
    cache = runner.new_cache()
    runner.forward(cache, ids[:20])
    capture.fail("capture", torch.OutOfMemoryError("CUDA out of memory."))
    runner.prepare(cache, STEPS, 24)
    assert runner.reason is not None
    runner.prepare(cache, STEPS, 24)
    assert runner.forward(cache, ids[20:22], then=_best).tolist() == _wanted(ids[:22])[20:]


def test_a_conversation_whose_return_ran_out_of_memory_is_kept(ids, monkeypatch):
    runner = _runner(Recomputed())
    caches = [runner.new_cache(), runner.new_cache()]
    runner.forward(caches[0], ids[:20])
    runner.forward(caches[1], ids[100:130])
    with monkeypatch.context() as short:

        def run_out(*arguments):
            raise torch.OutOfMemoryError("CUDA out of memory.")

        short.setattr(static.StaticLayer, "lazy_initialization", run_out)
        with pytest.raises(torch.OutOfMemoryError):
            # Larger buffers are needed for it.
            runner.forward(caches[0], ids[20:90])
    runner.forward(caches[1], ids[130:131])
    assert runner.forward(caches[0], ids[20:26]).argmax(-1).tolist() == _wanted(ids[:26])[20:]


# Loading


class _OnGpu:
    """The weight of an embedding as runner_for looks at it."""

    is_cuda = True
    device = torch.device("cpu")


def _loaded(monkeypatch, capture: Recomputed):
    """The runner that a model on a GPU gets, where there is no Triton."""
    model = tiny_model("llama")

    def no_triton(*arguments):
        raise UnsupportedError("Triton is not installed")

    monkeypatch.setattr(static, "FusedForward", no_triton)
    monkeypatch.setattr("specdec_core.runners.cuda_graph.CudaCapture", lambda device: capture)
    embedding = model.get_input_embeddings()

    class Embedding:
        weight = _OnGpu

    answers = iter([Embedding, Embedding])
    monkeypatch.setattr(
        type(model), "get_input_embeddings", lambda self: next(answers, embedding), raising=True
    )
    return runner_for(model)


def test_a_model_whose_capture_runs_out_of_memory_gets_a_runner_without_graphs(monkeypatch):
    capture = Recomputed()
    capture.fail("capture", torch.OutOfMemoryError("CUDA out of memory."))
    runner = _loaded(monkeypatch, capture)
    assert isinstance(runner, CudaGraphRunner)
    assert (runner.captures, runner.captured) == (False, 0)
    assert runner.reason == (
        "memory ran out for a graph, and none is used since: OutOfMemoryError: CUDA out of memory."
    )


def test_a_model_that_cannot_be_captured_gets_an_eager_runner_with_the_real_reason(monkeypatch):
    capture = Recomputed()
    capture.fail("capture", HostReadError("aten.nonzero.default waits"), times=9)
    runner = _loaded(monkeypatch, capture)
    assert isinstance(runner, EagerRunner)
    assert runner.reason == "no CUDA graph of llama: HostReadError: aten.nonzero.default waits"
    assert capture.captures == 3, "with the fused forward, the lean one and the modules"
