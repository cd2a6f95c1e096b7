"""The fused forward of tiny models, through Triton's interpreter, beside transformers' modules in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from specdec_core.runners import static
from specdec_core.runners.fused_products import KernelProduct, TorchProduct
from specdec_core.runners.lean_forward import FAMILIES as KNOWN
from specdec_core.runners.short_head import shorten_head
from specdec_core.runners.static import StaticRunner
from tests.support.triton_kernels import (
    VOCAB,
    dequantized_copy,
    fusable_model,
    int8_linear,
    nf4_linear,
    quantize,
)

FAMILIES = sorted(KNOWN)
pytestmark = pytest.mark.usefixtures("interpreter")
MANY, FEW = 21, 9
"""Rows of a prompt that the lean forward takes, and of one that the fused forward takes."""


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch) -> None:
    monkeypatch.setattr(static, "FIRST_BUCKET", 16)


def token_ids(count: int) -> Tensor:
    return torch.randint(3, VOCAB, (count,), generator=torch.Generator().manual_seed(3))


def fused_logits(runner: StaticRunner, parts: tuple[int, ...]) -> Tensor:
    """Logits of the same ids in parts, the second of which comes after others that are rewound."""
    assert runner.why_unfused is None
    cache, logits = runner.new_cache(), []
    for at, part in enumerate(token_ids(sum(parts)).split(parts)):
        if at == 1:
            length = cache.length
            runner.forward(cache, part.flip(0))
            cache.rewind(length)
        logits.append(runner.forward(cache, part).float().clone())
    return torch.cat(logits)


@torch.inference_mode()
def modules_logits(model: torch.nn.Module, count: int) -> Tensor:
    return model(token_ids(count)[None]).logits[0].float()


def check(model: torch.nn.Module, parts: tuple[int, ...], accuracy: float = 1e-4) -> StaticRunner:
    """Compare with transformers' modules over the same weights, dequantized."""
    wanted = modules_logits(dequantized_copy(model), sum(parts))
    runner = StaticRunner(model)
    got = fused_logits(runner, parts)
    assert wanted.std() > 0.5, "the logits differ enough to show an error"
    torch.testing.assert_close(got, wanted, atol=accuracy * wanted.std().item() * 4, rtol=accuracy)
    return runner


def extra(family: str) -> dict[str, int]:
    """A window shorter than the contexts, so that it matters."""
    return {"sliding_window": 12} if family == "gemma2" else {}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_the_modules(family):
    check(fusable_model(family, **extra(family)), (MANY, 1, 3))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_with_nf4_weights_equal_those_with_dequantized_ones(family):
    pytest.importorskip("bitsandbytes")
    check(fusable_model(family, "nf4", **extra(family)), (MANY, 1, 2))


@pytest.mark.parametrize("family", ["gemma2", "qwen2"])
def test_logits_with_int8_weights_equal_those_with_dequantized_ones(family):
    pytest.importorskip("bitsandbytes")
    check(fusable_model(family, "int8", **extra(family)), (MANY, 1, 2))


def test_the_bucket_grows_within_the_fused_forward():
    check(fusable_model("llama"), (61, 2, 3))  # to 128 positions, which are two splits


@pytest.mark.slow
def test_the_most_rows_are_those_of_the_longest_draft():
    check(fusable_model("qwen3"), (17, 17))


HEADS = {
    "a key head for each query head": {"num_key_value_heads": 2},
    "three query heads a key head": {"num_attention_heads": 3, "hidden_size": 96},
    "tied embeddings": {"tie_word_embeddings": True},
    "heads of 48": {"head_dim": 48},
}


@pytest.mark.parametrize("shape", HEADS.values(), ids=HEADS)
def test_shapes_of_other_models(shape):
    check(fusable_model("llama", num_hidden_layers=1, **shape), (MANY, 2))


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_biases_everywhere_are_added_once(quantization):
    if quantization:
        pytest.importorskip("bitsandbytes")
    model = fusable_model("llama", quantization, num_hidden_layers=1, attention_bias=True, mlp_bias=True)
    check(model, (MANY, 2))


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_half_precision(family):
    """Within a few of its steps: the modules, too, round every operation."""
    pytest.importorskip("bitsandbytes")
    check(fusable_model(family, "nf4", torch.float16, num_hidden_layers=1, **extra(family)), (MANY, 2), 4e-3)


def test_last_rows_and_a_function_of_the_logits():
    runner = StaticRunner(fusable_model("llama", num_hidden_layers=1))
    ids = token_ids(5)
    whole = runner.forward(runner.new_cache(), ids).clone()
    torch.testing.assert_close(runner.forward(runner.new_cache(), ids, last_rows=2), whole[-2:])
    assert torch.equal(
        runner.forward(runner.new_cache(), ids, then=lambda logits: logits.argmax(-1)), whole.argmax(-1)
    )


def test_logits_stop_at_the_tokenizer_s_ids():
    model = fusable_model("gemma2", num_hidden_layers=1)
    wanted = modules_logits(model, 2)[:, : VOCAB - 6]
    runner = StaticRunner(model, vocab_size=VOCAB - 6)
    got = runner.forward(runner.new_cache(), token_ids(2))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_a_short_output_layer():
    model = fusable_model("llama", num_hidden_layers=1)
    wanted = modules_logits(model, 3)
    shorten_head(model, range(0, VOCAB, 3))
    runner = StaticRunner(model)
    got = fused_logits(runner, (2, 1))
    torch.testing.assert_close(got[:, ::3], wanted[:, ::3], atol=1e-4, rtol=1e-4)
    assert (got[:, 1::3] == -torch.inf).all()


def test_a_row_comes_out_alike_whatever_the_rows_behind_it():
    pytest.importorskip("bitsandbytes")
    runner = StaticRunner(fusable_model("llama", "nf4", num_hidden_layers=1))
    lean = runner.lean_forward
    head = lean.head
    # torch's own product of the output layer depends on the number of rows.
    lean.head = lambda x: torch.cat([head(row[None]) for row in x])
    ids = token_ids(MANY + 5)

    def logits(rows: int) -> Tensor:
        cache = runner.new_cache()
        runner.forward(cache, ids[:MANY])
        return runner.forward(cache, ids[MANY : MANY + rows])

    together = logits(5)
    assert torch.equal(together[:1], logits(1))
    assert torch.equal(together[:2], logits(2))


def test_conversations_that_take_turns_do_not_meet():
    runner = StaticRunner(fusable_model("llama", num_hidden_layers=1))
    conversations = token_ids(8).split(4)
    caches = [runner.new_cache() for _ in conversations]
    turns = [
        [
            runner.forward(cache, ids[at : at + 2]).clone()
            for cache, ids in zip(caches, conversations, strict=True)
        ]
        for at in (0, 2)
    ]
    for at, ids in enumerate(conversations):
        got = torch.cat([turn[at] for turn in turns])
        torch.testing.assert_close(got, runner.forward(runner.new_cache(), ids), atol=1e-5, rtol=1e-5)


def test_layers_that_are_not_quantized_lie_between_quantized_ones():
    pytest.importorskip("bitsandbytes")
    model = fusable_model("llama")
    first, second = model.model.layers
    quantize(first.mlp, "nf4")
    second.self_attn.o_proj = int8_linear(second.self_attn.o_proj)
    second.self_attn.k_proj = nf4_linear(second.self_attn.k_proj)
    second.mlp.down_proj = nf4_linear(second.mlp.down_proj, blocksize=128, quant_type="fp4")
    runner = check(model, (FEW, 1))
    kinds = [
        [type(product) for product in (layer.qkv, layer.output, layer.gate_up, layer.down)]
        for layer in runner.fused_forward._layers
    ]
    assert kinds == [
        [TorchProduct, TorchProduct, KernelProduct, KernelProduct],
        [TorchProduct, KernelProduct, TorchProduct, TorchProduct],
    ]


def test_another_activation_is_left_to_the_lean_forward():
    model = fusable_model("llama", hidden_act="relu")
    wanted = modules_logits(model, 4)
    runner = StaticRunner(model)
    assert (runner.fused_forward, runner.why_unfused) == (None, "its activation is ReLU")
    torch.testing.assert_close(runner.forward(runner.new_cache(), token_ids(4)), wanted, atol=1e-4, rtol=1e-4)


def test_a_reason_against_it_is_kept():
    runner = StaticRunner(fusable_model("llama"), why_unfused="for comparison")
    assert runner.fused_forward is None
    assert runner.why_unfused == "for comparison"
