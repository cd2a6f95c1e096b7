"""Devices and machines that the kernels run on; on all others the lean forward serves, with the reason."""

from __future__ import annotations

import sys

import pytest
import torch

from specdec_core.runners import fused_forward
from specdec_core.runners.fused_kernels import kernels_for, power_of_two
from specdec_core.runners.lean_forward import UnsupportedError
from specdec_core.runners.static import StaticRunner
from tests.support.triton_kernels import VOCAB, fusable_model

GPU = torch.device("cuda")


def lean_serves(reason: str) -> None:
    model = fusable_model("llama")
    ids = torch.randint(3, VOCAB, (4,))
    with torch.inference_mode():
        wanted = model(ids[None]).logits[0]
    runner = StaticRunner(model)
    assert (runner.fused_forward, runner.why_unfused, runner.why_modules) == (None, reason, None)
    torch.testing.assert_close(runner.forward(runner.new_cache(), ids), wanted, atol=1e-4, rtol=1e-4)


def test_a_cpu_is_left_to_the_lean_forward():
    pytest.importorskip("triton")
    lean_serves("it is not on a GPU")


def test_without_triton_the_lean_forward_serves(monkeypatch):
    monkeypatch.delitem(sys.modules, "specdec_core.runners.kernels", raising=False)
    monkeypatch.setitem(sys.modules, "triton", None)
    lean_serves("Triton is not installed")


def test_a_gpu_that_is_too_old_is_left_to_the_lean_forward(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(fused_forward, "kernels_for", lambda device: kernels_for(GPU))
    lean_serves("the GPU has a compute capability below 8.0")


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_a_gpu_since_ampere_has_compiled_kernels(capability, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert not kernels_for(GPU).INTERPRETED


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5)])
def test_a_gpu_before_ampere_has_none(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with pytest.raises(UnsupportedError, match=r"below 8\.0"):
        kernels_for(GPU)


@pytest.mark.parametrize(("size", "power"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_a_block_is_the_next_power_of_two(size, power):
    assert power_of_two(size) == power
