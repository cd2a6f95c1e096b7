"""Triton's interpreter for the kernels on a CPU, and tiny models with bitsandbytes' layers to run."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

INTERPRET = "TRITON_INTERPRET"
VOCAB = 96
Quantization = Literal["nf4", "int8"] | None


@contextmanager
def interpreted_kernels() -> Iterator[None]:
    """Within it the kernels run on CPU tensors, a thousand times slower than compiled code.

    Triton decides when a function is decorated, so its own functions are decorated again as well.
    """
    before = os.environ.get(INTERPRET)
    os.environ[INTERPRET] = "1"
    try:
        with _language_restored():
            _decorate_again()
            yield
    finally:
        os.environ.pop(INTERPRET)
        if before is not None:
            os.environ[INTERPRET] = before
        _decorate_again()


@contextmanager
def _language_restored() -> Iterator[None]:
    """The interpreter replaces operations of Triton's language, and does not restore all of them after nested
    calls. Nothing could be compiled then.
    """
    from triton import language

    patched = [language, language.core, language.math, language.tensor, language.dtype]
    patched.append(language.core.tensor_descriptor_base)
    before = [dict(vars(each)) for each in patched]
    try:
        yield
    finally:
        for each, attributes in zip(patched, before, strict=True):
            for name in [name for name in vars(each) if name not in attributes]:
                delattr(each, name)
            for name, value in attributes.items():
                if vars(each).get(name) is not value:
                    setattr(each, name, value)


def _decorate_again() -> None:
    for name in ("triton.language.standard", "triton.language", "specdec_core.runners.kernels"):
        importlib.reload(importlib.import_module(name))


def fusable_model(
    family: str, quantization: Quantization = None, dtype: torch.dtype = torch.float32, **extra: Any
) -> PreTrainedModel:
    """A random model whose layers have a size that bitsandbytes and the kernels take, with grouped heads."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    config = AutoConfig.for_model(family, **(shape | extra))
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases that differ from each other
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4)
    if quantization is not None:
        quantize(model.model.layers, quantization)
    return model


def quantize(module: torch.nn.Module, quantization: Quantization, nested: bool = True) -> None:
    """Replace the linear layers below a module by bitsandbytes' own."""
    for name, child in list(module.named_children()):
        if type(child) is torch.nn.Linear:
            layer = nf4_linear(child, nested=nested) if quantization == "nf4" else int8_linear(child)
            setattr(module, name, layer)
        else:
            quantize(child, quantization, nested)


def nf4_linear(
    layer: torch.nn.Linear, *, nested: bool = True, quant_type: str = "nf4", blocksize: int = 64
) -> torch.nn.Linear:
    """bitsandbytes' layer with four-bit weights; nested ones have quantized scales."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    dtype = layer.weight.dtype
    biased = layer.bias is not None
    made = Linear4bit(layer.in_features, layer.out_features, bias=biased, device="meta", compute_dtype=dtype)
    made.weight = Params4bit(
        layer.weight.data,
        requires_grad=False,
        quant_type=quant_type,
        blocksize=blocksize,
        compress_statistics=nested,
        module=made,
    )._quantize("cpu")
    made.bias = layer.bias
    return made.eval()


def int8_linear(layer: torch.nn.Linear, *, threshold: float = 0.0) -> torch.nn.Linear:
    """bitsandbytes' layer with eight-bit weights."""
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    biased = layer.bias is not None
    made = Linear8bitLt(
        layer.in_features, layer.out_features, bias=biased, has_fp16_weights=False, threshold=threshold
    )
    made.weight = Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)._quantize("cpu")
    made.bias = layer.bias
    return made.eval()


def dequantized_weight(layer: Any) -> torch.Tensor:
    """The weight [n, k] float32 that a layer of bitsandbytes stands for."""
    from bitsandbytes.functional import dequantize_4bit

    if type(layer).__name__ == "Linear4bit":
        return dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    codes, scales = layer.weight.CB, layer.weight.SCB
    if codes is None:
        codes, scales = layer.state.CB, layer.state.SCB
    return codes.float() * scales.float()[:, None] / 127


def dequantized_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float32 with linear layers in place of bitsandbytes' own."""
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ in ("Linear4bit", "Linear8bitLt"):
                layer = torch.nn.Linear(child.in_features, child.out_features, bias=child.bias is not None)
                layer.weight = torch.nn.Parameter(dequantized_weight(child), requires_grad=False)
                layer.bias = child.bias
                setattr(module, name, layer)
    return plain.float()


def evens_first(x: torch.Tensor) -> torch.Tensor:
    """The even elements of each row, then the odd ones: the order that the NF4 kernel reads."""
    return torch.cat([x[..., 0::2], x[..., 1::2]], -1)
