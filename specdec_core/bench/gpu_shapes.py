"""Models of real sizes with random weights, made on the device and quantized there: nothing is stored."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ..loading.devices import dtype_for

Shape = Literal["llama_1b", "llama_3b", "gemma_2b", "gemma_7b"]
WeightFormat = Literal["bf16", "int8", "nf4"]

_LLAMA_1B = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
_GEMMA_2B = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "vocab_size": 256000,
    "hidden_size": 2048,
    "intermediate_size": 16384,
    "num_hidden_layers": 18,
    "num_attention_heads": 8,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "max_position_embeddings": 8192,
}
_SIZES: dict[Shape, dict[str, Any]] = {
    "llama_1b": _LLAMA_1B,
    "llama_3b": {
        **_LLAMA_1B,
        "hidden_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "head_dim": 128,
    },
    "gemma_2b": _GEMMA_2B,
    "gemma_7b": {
        **_GEMMA_2B,
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
    },
}
_SMOKE = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def shape_config(shape: Shape, smoke: bool) -> dict[str, Any]:
    """Return the values of the model's config.json; small ones for a smoke run."""
    return {**_SIZES[shape], **_SMOKE} if smoke else _SIZES[shape]


def random_shape(shape: Shape, held: WeightFormat, device: torch.device, smoke: bool) -> PreTrainedModel:
    """Make a model of that shape on the device; int8 and NF4 layers are quantized as the loader does it."""
    values = {name: value for name, value in shape_config(shape, smoke).items() if name != "architectures"}
    torch.manual_seed(0)
    with device:
        config = AutoConfig.for_model(**values)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype_for(config, device))
    if held != "bf16":
        _quantize(model.model.layers, int8_layer if held == "int8" else nf4_layer)
    return model.eval()


def _quantize(layers: torch.nn.Module, quantized: Callable[[torch.nn.Linear], torch.nn.Module]) -> None:
    """Replace each linear layer by a quantized one, weight by weight to save memory."""
    plain = [
        (module, name, child)
        for module in layers.modules()
        for name, child in module.named_children()
        if type(child) is torch.nn.Linear
    ]
    while plain:
        module, name, linear = plain.pop()
        layer: Any = quantized(linear)
        if linear.bias is not None:
            layer.bias = linear.bias
        setattr(module, name, layer)


def nf4_layer(linear: torch.nn.Linear) -> torch.nn.Module:
    """Return bitsandbytes' NF4 layer of the weight, as the loader makes it, without a bias's values."""
    nn: Any = importlib.import_module("bitsandbytes").nn
    layer = nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        device="meta",
        compute_dtype=linear.weight.dtype,
        compress_statistics=False,
        quant_type="nf4",
    )
    layer.weight = nn.Params4bit(
        linear.weight.data,
        requires_grad=False,
        quant_type="nf4",
        compress_statistics=False,
        module=layer,
    ).to(linear.weight.device)
    return layer


def int8_layer(linear: torch.nn.Linear) -> torch.nn.Module:
    """Return bitsandbytes' int8 layer of the weight, as the loader makes it, without a bias's values."""
    nn: Any = importlib.import_module("bitsandbytes").nn
    layer = nn.Linear8bitLt(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        has_fp16_weights=False,
        threshold=0.0,
        device="meta",
    )
    # Quantized on the way from the CPU to another device.
    layer.weight = nn.Int8Params(linear.weight.data.cpu(), requires_grad=False).to(linear.weight.device)
    return layer
