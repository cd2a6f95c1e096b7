"""The fixed-shape forward that CUDA graphs capture, run without capture: same logits, sessions kept apart."""

import copy

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from specdec_core.bench.families import random_model
from specdec_core.bench.tiny_configs import WINDOW, tiny_config
from specdec_core.runners import CudaGraphRunner, lean_forward, static
from specdec_core.runners.cuda_graph import logit_difference
from specdec_core.runners.lean_forward import FAMILIES as KNOWN, UnsupportedError
from specdec_core.runners.static import StaticRunner
from tests.support.tiny_models import ARCHITECTURES, VOCAB, tiny_model, uneven_model

FAMILIES = sorted(KNOWN)
WANTED = "for comparison"


@pytest.fixture
def ids(monkeypatch) -> torch.Tensor:
    """Longer than two buckets, so that the buffers grow twice."""
    monkeypatch.setattr(static, "FIRST_BUCKET", 32)
    return torch.randint(0, VOCAB, (150,), generator=torch.Generator().manual_seed(3))


def _runner(model: torch.nn.Module, lean: bool = True) -> StaticRunner:
    """With attention over few rows as a GPU computes it."""
    runner = StaticRunner(model, why_modules=None if lean else WANTED)
    if runner.lean_forward is not None:
        runner.lean_forward.few_rows_in_products = True
    return runner


@torch.inference_mode()
def _fresh(architecture: str, ids: torch.Tensor) -> torch.Tensor:
    return uneven_model(architecture)(ids[None]).logits[0]


@pytest.mark.parametrize("lean", [True, False], ids=["lean", "modules"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_a_full_forward_s_across_buckets(architecture, lean, ids):
    runner = _runner(uneven_model(architecture), lean)
    cache = runner.new_cache()
    parts = ids.split([20, 1, 2, 5, 30, 1, 9, 1, 81])
    got = torch.cat([runner.forward(cache, part).clone() for part in parts])
    torch.testing.assert_close(got, _fresh(architecture, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_rewind_costs_nothing_and_leaves_no_trace(architecture, ids):
    runner = _runner(uneven_model(architecture))
    cache = runner.new_cache()
    runner.forward(cache, ids[:40])
    runner.forward(cache, ids[100:109])
    cache.rewind(40)
    got = runner.forward(cache, ids[40:45])
    torch.testing.assert_close(got, _fresh(architecture, ids)[40:45], atol=1e-4, rtol=1e-4)


def test_sessions_that_take_turns_do_not_meet(ids):
    runner = _runner(uneven_model("llama"))
    conversations = [ids[:60], ids[60:150]]
    caches = [runner.new_cache() for _ in conversations]
    for at in range(0, 60, 4):
        for cache, conversation in zip(caches, conversations, strict=True):
            got = runner.forward(cache, conversation[at : at + 4])
            wanted = _fresh("llama", conversation)[at : at + 4]
            torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_a_session_that_is_gone_is_not_parked(ids):
    runner = _runner(uneven_model("llama"))
    runner.forward(runner.new_cache(), ids[:10])
    cache = runner.new_cache()
    got = runner.forward(cache, ids[:10])
    torch.testing.assert_close(got, _fresh("llama", ids[:10]), atol=1e-4, rtol=1e-4)


class _Elsewhere(torch.nn.Linear):
    """As a quantized layer is: a module that computes its product itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_layers_whose_products_are_their_own_are_left_to_them(architecture, ids):
    model = uneven_model(architecture)
    for module in model.model.layers.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = _Elsewhere
    runner = _runner(model)
    got = torch.cat(
        [runner.forward(cache, part).clone() for cache in [runner.new_cache()] for part in ids.split(9)]
    )
    assert runner.why_modules is None
    torch.testing.assert_close(got, _fresh(architecture, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_attention_may_come_in_the_layout_of_a_gpu_s_kernels(architecture, ids, monkeypatch):
    """The memory-efficient one puts heads after rows."""

    def rows_first(*args, **kwargs):
        return scaled_dot_product_attention(*args, **kwargs).transpose(1, 2).contiguous().transpose(1, 2)

    monkeypatch.setattr(lean_forward, "scaled_dot_product_attention", rows_first)
    runner = _runner(uneven_model(architecture))
    got = runner.forward(runner.new_cache(), ids[:40])
    torch.testing.assert_close(got, _fresh(architecture, ids[:40]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_in_half_precision_the_lean_forward_is_no_further_off_than_the_modules(architecture, ids):
    wanted = _fresh(architecture, ids)
    off = []
    for lean in (True, False):
        runner = _runner(uneven_model(architecture).to(torch.bfloat16), lean)
        cache = runner.new_cache()
        got = torch.cat([runner.forward(cache, part).float().clone() for part in ids.split([90, 1, 5, 54])])
        off.append(logit_difference(got, wanted))
    assert off[0] < 1.2 * off[1] + 0.01


class _Counted(TorchDispatchMode):
    """Counts the operations that compute something: those whose result has memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        parts = found if isinstance(found, tuple | list) else [found]
        self.count += func._schema.is_mutable or any(
            p.untyped_storage().data_ptr() not in given for p in parts
        )
        return found


def _operations_a_layer(architecture: str, lean: bool, rows: int) -> float:
    counts = []
    for layers in (2, 4):
        config = copy.deepcopy(tiny_model(architecture).config)
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = (config.layer_types * layers)[:layers]
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        runner = _runner(model, lean)
        ids = torch.arange(5, 5 + rows)
        # Inference mode leaves norms and products whole here, as they are on a GPU.
        with torch.inference_mode(), _Counted() as counted:
            runner.compute(ids, runner.positions(20, 20 + rows), 32, 0, None)
        counts.append(counted.count)
    return (counts[1] - counts[0]) / 2


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_lean_layer_is_less_than_half_of_a_module_s_operations(architecture, rows):
    """Each is a kernel on a GPU, and there are hundreds in a step."""
    lean, modules = (_operations_a_layer(architecture, lean, rows) for lean in (True, False))
    assert lean < 0.5 * modules


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_replayed_graphs_equal_the_eager_forward(architecture, ids):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    runner = CudaGraphRunner(uneven_model(architecture).to("cuda"))
    cache = runner.new_cache()
    parts = ids.cuda().split([20, 1, 2, 5, 30, 1, 9, 1, 81])
    got = torch.cat([runner.forward(cache, part).clone() for part in parts]).cpu()
    torch.testing.assert_close(got, _fresh(architecture, ids), atol=1e-2, rtol=1e-2)


def _in_place(function):
    """Captures as a CUDA graph would be replayed: into the same result."""
    result = function()
    return lambda: result.copy_(function()), result


def _random(model_type: str) -> torch.nn.Module:
    return random_model(tiny_config(model_type, VOCAB), 4.0)


def test_a_window_that_all_layers_have_without_naming_it_is_kept(ids):
    """Mistral; the text is several windows long."""
    model = _random("mistral")
    with torch.inference_mode():
        wanted = model(ids[None]).logits[0]
    runner = CudaGraphRunner(model, capture=_in_place)
    cache = runner.new_cache()
    got = torch.cat(
        [runner.forward(cache, part).clone() for part in ids.split([20, 1, 2, 5, 30, 1, 9, 1, 81])]
    )
    assert len(ids) > 3 * WINDOW
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("model_type", "reason"), [("gpt_oss", "sinks"), ("llama4_text", "chunked_attention")]
)
def test_attention_that_the_folded_product_does_not_compute_is_refused(model_type, reason):
    with pytest.raises(UnsupportedError, match=reason):
        CudaGraphRunner(_random(model_type), capture=_in_place)


def test_a_parked_conversation_with_layers_that_store_nothing_comes_back(ids):
    model = _random("gemma3n_text")
    runner = StaticRunner(model, why_modules=WANTED)
    caches = [runner.new_cache(), runner.new_cache()]
    first = runner.forward(caches[0], ids[:20]).clone()
    runner.forward(caches[1], ids[50:90])
    caches[0].rewind(19)
    torch.testing.assert_close(runner.forward(caches[0], ids[19:20]), first[19:], atol=1e-4, rtol=1e-4)
