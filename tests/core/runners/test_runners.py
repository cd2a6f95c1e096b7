"""Every runner computes the model's own logits, whatever the rows and however the cache was rewound."""

import sys

import pytest
import torch
from transformers import cache_utils

from specdec_core.runners import EagerRunner, LeanRunner, few_rows, runner_for
from specdec_core.runners.few_rows import FewRowsLinear, stock_layers
from specdec_core.runners.kv_cache import KVCache
from tests.support.tiny_models import ARCHITECTURES, VOCAB, tiny_model, uneven_model


def _ids(count: int) -> torch.Tensor:
    return torch.randint(0, VOCAB, (count,), generator=torch.Generator().manual_seed(3))


@torch.inference_mode()
def _fresh_logits(architecture: str, ids: torch.Tensor) -> torch.Tensor:
    return uneven_model(architecture)(ids[None]).logits[0]


@pytest.mark.parametrize("make_runner", [EagerRunner, runner_for], ids=["eager", "fastest"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_a_full_forward_s_for_every_cut_into_rows(architecture, make_runner):
    ids = _ids(40)
    runner = make_runner(uneven_model(architecture))
    cache = runner.new_cache()
    got = torch.cat([runner.forward(cache, part).clone() for part in ids.split([17, 1, 2, 5, 1, 8, 6])])
    torch.testing.assert_close(got, _fresh_logits(architecture, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_a_rewind_other_tokens_take_the_place(architecture):
    ids = _ids(30)
    runner = runner_for(uneven_model(architecture))
    cache = runner.new_cache()
    runner.forward(cache, torch.cat([ids[:20], _ids(7)]))
    cache.rewind(20)
    got = runner.forward(cache, ids[20:])
    torch.testing.assert_close(got, _fresh_logits(architecture, ids)[20:], atol=1e-4, rtol=1e-4)


def test_prefill_in_chunks_gives_the_last_row():
    model = tiny_model("gpt2")
    model.config.max_position_embeddings = 2000
    runner = runner_for(uneven_model("llama"))
    ids = _ids(1200)
    got = runner.prefill(runner.new_cache(), ids.tolist())
    torch.testing.assert_close(got, _fresh_logits("llama", ids)[-1:], atol=1e-3, rtol=1e-3)


def test_a_prefill_stops_between_chunks_when_asked():
    runner = runner_for(uneven_model("llama"))
    cache = runner.new_cache()
    assert runner.prefill(cache, _ids(1200).tolist(), stopped=lambda: cache.length >= 512) is None
    assert cache.length == 512


def test_a_cache_that_was_reserved_does_not_move_while_it_fills():
    runner = runner_for(uneven_model("llama"))
    cache = runner.new_cache()
    cache.reserve(300)
    runner.prefill(cache, _ids(10).tolist())
    before = cache.size_bytes
    runner.prefill(cache, _ids(250).tolist())
    assert cache.size_bytes == before > 0


def test_a_cache_that_outgrows_its_room_keeps_what_it_holds():
    ids = _ids(200)
    runner = runner_for(uneven_model("llama"))
    cache = runner.new_cache()
    cache.reserve(8)
    got = torch.cat([runner.forward(cache, part) for part in ids.split(50)])
    torch.testing.assert_close(got, _fresh_logits("llama", ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"])
def test_known_families_run_on_onnx_runtime_and_their_own_weights_are_held_once(architecture):
    model = tiny_model(architecture)
    before = sum(p.untyped_storage().nbytes() for p in {p.data_ptr(): p for p in model.parameters()}.values())
    runner = runner_for(model)
    storages = {p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    assert (runner.name, runner.reason) == ("onnx", None)
    assert sum(storages.values()) == before


@pytest.mark.parametrize("architecture", ["gpt2"])
def test_other_models_get_the_eager_runner_with_a_reason(architecture):
    runner = runner_for(tiny_model(architecture))
    assert type(runner) is EagerRunner
    assert architecture in runner.reason


def test_a_runner_that_computes_something_else_is_not_made():
    model = tiny_model("llama")
    # Both forwards of our own read one epsilon, that of the configuration, for all norms.
    model.model.norm.variance_epsilon = 1.0
    runner = runner_for(model)
    assert type(runner) is EagerRunner
    assert "logits differ" in runner.reason


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_onnx_runtime_the_lean_runner_serves_and_says_so(monkeypatch, package):
    for name in [name for name in sys.modules if name.startswith("specdec_core.runners.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    runner = runner_for(tiny_model("llama"))
    assert type(runner) is LeanRunner
    assert runner.reason == f"{package} is not installed"


def test_a_padded_width_is_cut_to_the_vocabulary():
    for architecture in ("llama", "gpt2"):
        runner = runner_for(tiny_model(architecture), vocab_size=VOCAB - 3)
        assert runner.forward(runner.new_cache(), _ids(4)[:1] % 9).shape == (1, VOCAB - 3)


def test_peers_are_measured_on_layers_as_transformers_made_them():
    model = tiny_model("llama")
    runner_for(model)
    kinds = lambda: {type(m) for m in model.modules() if isinstance(m, torch.nn.Linear)}  # noqa: E731
    assert kinds() == {FewRowsLinear}
    with stock_layers(model):
        assert kinds() == {torch.nn.Linear}
    assert kinds() == {FewRowsLinear}


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 9, 70])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_a_projection_is_a_linear_layer_for_any_number_of_rows(monkeypatch, rows, packed, biased):
    monkeypatch.setattr(few_rows, "_SMALLEST_PACKED_BYTES", 0)
    monkeypatch.setattr(few_rows, "_LARGEST_PACKED_BYTES", 2**20 if packed else 0)
    weight, x = torch.randn(48, 32), torch.randn(rows, 32)
    bias = torch.randn(48) if biased else None
    wanted = torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(few_rows.Projection(weight, bias)(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", range(1, 10))
def test_a_layer_s_output_is_laid_out_in_rows(rows, bias):
    """Llama 4 and DeepSeek-V2 view it as complex numbers, which needs neighbours in memory."""
    layer = FewRowsLinear(torch.nn.Linear(6, 8, bias=bias))
    out = layer(torch.randn(1, rows, 6))
    assert out.is_contiguous()
    assert torch.view_as_complex(out.view(1, rows, 4, 2)).shape == (1, rows, 4)


@pytest.mark.skipif(not hasattr(cache_utils, "DummyLayer"), reason="this transformers leaves such layers out")
def test_a_rewind_reaches_the_layers_that_store_and_leaves_the_others():
    cache = KVCache([True, True, False])
    states = torch.randn(1, 2, 5, 4)
    for at in (0, 1):
        cache.update(states, states, at)
    cache.rewind(3)
    assert (cache.length, cache.get_seq_length(1)) == (3, 3)
