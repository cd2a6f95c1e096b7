"""The fixed-shape forward that CUDA graphs capture, run without capture: same logits, sessions kept apart."""

import pytest
import torch
from tiny_models import ARCHITECTURES, VOCAB, tiny_model

from specdec_core.runners import CudaGraphRunner, static
from specdec_core.runners.static import StaticRunner


@pytest.fixture
def ids(monkeypatch) -> torch.Tensor:
    """Longer than two buckets, so that the buffers grow twice."""
    monkeypatch.setattr(static, "FIRST_BUCKET", 32)
    return torch.randint(0, VOCAB, (150,), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def _fresh(architecture: str, ids: torch.Tensor) -> torch.Tensor:
    return tiny_model(architecture)(ids[None]).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_a_full_forward_s_across_buckets(architecture, ids):
    runner = StaticRunner(tiny_model(architecture))
    cache = runner.new_cache()
    parts = ids.split([20, 1, 2, 5, 30, 1, 9, 1, 81])
    got = torch.cat([runner.forward(cache, part).clone() for part in parts])
    torch.testing.assert_close(got, _fresh(architecture, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_rewind_costs_nothing_and_leaves_no_trace(architecture, ids):
    runner = StaticRunner(tiny_model(architecture))
    cache = runner.new_cache()
    runner.forward(cache, ids[:40])
    runner.forward(cache, ids[100:109])
    cache.rewind(40)
    got = runner.forward(cache, ids[40:45])
    torch.testing.assert_close(got, _fresh(architecture, ids)[40:45], atol=1e-4, rtol=1e-4)


def test_sessions_that_take_turns_do_not_meet(ids):
    runner = StaticRunner(tiny_model("llama"))
    conversations = [ids[:60], ids[60:150]]
    caches = [runner.new_cache() for _ in conversations]
    for at in range(0, 60, 4):
        for cache, conversation in zip(caches, conversations, strict=True):
            got = runner.forward(cache, conversation[at : at + 4])
            wanted = _fresh("llama", conversation)[at : at + 4]
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_a_session_that_is_gone_is_not_parked(ids):
    runner = StaticRunner(tiny_model("llama"))
    runner.forward(runner.new_cache(), ids[:10])
    cache = runner.new_cache()
    got = runner.forward(cache, ids[:10])
    torch.testing.assert_close(got, _fresh("llama", ids[:10]), atol=1e-4, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replayed_graphs_equal_the_eager_forward(architecture, ids):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    runner = CudaGraphRunner(tiny_model(architecture).to("cuda"))
    cache = runner.new_cache()
    parts = ids.cuda().split([20, 1, 2, 5, 30, 1, 9, 1, 81])
    got = torch.cat([runner.forward(cache, part).clone() for part in parts]).cpu()
    torch.testing.assert_close(got, _fresh(architecture, ids), atol=1e-2, rtol=1e-2)
