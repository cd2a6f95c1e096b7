"""Capture of functions: order of streams, pools, errors and what they leave behind. torch.cuda is faked."""

import gc
import weakref

import pytest
import torch

from specdec_core import capture_streams
from specdec_core.out_of_memory import release_memory
from specdec_core.runners import CudaGraphRunner, cuda_capture, runner_for
from specdec_core.runners.cuda_capture import CaptureRefusedError, CudaCapture, capture_refusal
from specdec_core.runners.host_reads import HostReadError
from tests.support.fake_cuda import FakeCuda
from tests.support.tiny_models import tiny_model

CPU = torch.device("cpu")
ONES = torch.ones(3)


@pytest.fixture(params=[True, False], ids=["torch ends failed captures", "torch leaves them open"])
def cuda(request, monkeypatch):
    for module, name, kind in (
        (cuda_capture, "_refusals", dict),
        (cuda_capture, "_unfinished", list),
        (capture_streams, "_used", set),
        (capture_streams, "_owners", weakref.WeakSet),
    ):
        monkeypatch.setattr(module, name, kind())
    capture_streams._idle.pop(CPU, None)
    gc.collect()
    return FakeCuda(monkeypatch, request.param)


def _capture() -> CudaCapture:
    return CudaCapture(CPU, replay=lambda graph: None)


class _Failing:
    """A function that raises in its call number `at`, and breaks the capture if it is under way."""

    def __init__(self, cuda: FakeCuda, at: int, error: Exception) -> None:
        self._cuda, self._at, self._error = cuda, at, error
        self.calls = 0

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        if self.calls == self._at:
            self._cuda.breaks_captures = True
            raise self._error
        return ONES * 2


@torch.inference_mode()
def test_the_capture_follows_three_runs_on_a_stream_of_its_own(cuda):
    ran_on = []

    def function() -> torch.Tensor:
        ran_on.append(cuda.current.name)
        return ONES * 2

    _, result = _capture()(function)
    assert ran_on == ["side 1"] * 4
    assert cuda.log == ["side 1 waits for main", "main waits for side 1", "capture on side 1 into (0, 1)"]
    assert cuda.current is cuda.main
    assert result.tolist() == [2, 2, 2]


@torch.inference_mode()
def test_graphs_share_a_pool_as_long_as_one_of_them_lives(cuda):
    capture = _capture()
    first, second = capture(lambda: ONES * 2), capture(lambda: ONES * 3)
    del first, second
    gc.collect()
    capture(lambda: ONES * 4)
    assert [line[-6:] for line in cuda.log if "capture" in line] == ["(0, 1)", "(0, 1)", "(0, 2)"]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
@torch.inference_mode()
def test_after_an_error_in_any_run_the_stream_is_back_and_the_error_is_the_function_s(cuda, at):
    capture = _capture()
    with pytest.raises(ValueError, match="the real reason"):
        capture(_Failing(cuda, at, ValueError("the real reason")))
    assert cuda.current is cuda.main
    assert "main waits for side 1" in cuda.log
    assert not cuda.under_way
    assert not cuda.generator.capturing


@torch.inference_mode()
def test_a_function_that_reads_on_the_host_is_not_captured_at_all(cuda):
    with pytest.raises(HostReadError):
        _capture()(lambda: ONES * ONES.sum().item())
    assert not any("capture" in line for line in cuda.log)
    assert capture_refusal(CPU) is None


@torch.inference_mode()
def test_a_capture_that_torch_left_open_is_the_last_on_its_device(cuda):
    with pytest.raises(ValueError, match="the real reason"):
        _capture()(_Failing(cuda, 4, ValueError("the real reason")))
    cuda.breaks_captures = False
    if cuda.ends_for_the_allocator:
        _capture()(lambda: ONES * 2)
        assert capture_refusal(CPU) is None
    else:
        with pytest.raises(CaptureRefusedError, match="the real reason"):
            _capture()(lambda: ONES * 2)
        assert len(cuda_capture._unfinished) == 1


@torch.inference_mode()
def test_an_error_that_leaves_the_capture_valid_changes_nothing_for_the_next(cuda):
    function = _Failing(cuda, 4, torch.OutOfMemoryError("CUDA out of memory."))
    capture = _capture()

    def harmless() -> torch.Tensor:
        try:
            return function()
        finally:
            cuda.breaks_captures = False

    with pytest.raises(torch.OutOfMemoryError):
        capture(harmless)
    assert capture_refusal(CPU) is None
    capture(lambda: ONES * 2)


@torch.inference_mode()
def test_an_error_that_only_the_end_of_the_capture_reports_is_raised(cuda):
    cuda.breaks_captures = True
    with pytest.raises(RuntimeError, match="previous error during capture"):
        _capture()(lambda: ONES * 2)


class _OnGpu:
    """The weight of an embedding as runner_for looks at it."""

    is_cuda = True
    device = CPU


def test_on_a_device_without_captures_the_runner_is_eager_and_says_why(cuda, monkeypatch):
    model = tiny_model("llama")
    monkeypatch.setitem(cuda_capture._refusals, CPU, "a capture failed before")
    monkeypatch.setattr(
        type(model), "get_input_embeddings", lambda self: type("Embedding", (), {"weight": _OnGpu})
    )
    made = []
    monkeypatch.setattr(CudaGraphRunner, "__init__", lambda self, *args, **options: made.append(options))
    runner = runner_for(model, vocab_size=96)
    assert (runner.name, made) == ("eager", [])
    assert runner.reason == "no CUDA graph of llama: a capture failed before"


def test_living_captures_have_streams_of_their_own_and_later_ones_get_them_again(cuda):
    first, second = _capture(), _capture()
    assert {first._side.name, second._side.name} == {"side 1", "side 2"}
    del first
    gc.collect()
    third = _capture()
    assert third._side is not second._side
    assert cuda.streams == 2


def test_scratch_memory_is_freed_when_no_capture_is_left(cuda):
    release_memory()
    assert cuda.cleared == 0
    first, second = _capture(), _capture()
    del first
    release_memory()
    assert cuda.cleared == 0, "graphs of the second still use theirs"
    del second
    release_memory()
    release_memory()
    assert cuda.cleared == 1
