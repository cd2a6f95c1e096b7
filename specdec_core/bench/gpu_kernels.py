"""The products and the attention of the fused forward as functions that the GPU checks time."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..runners.fused_attention import fused_attention
from ..runners.fused_products import fused_product


def fused_nf4_product(weight: Tensor) -> Any:
    """Return the product of our kernel with the weight in NF4, x [rows, in] → partial results."""
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    outputs, inputs = weight.shape
    module = bitsandbytes.nn.Linear4bit(
        inputs, outputs, bias=False, device="meta", compute_dtype=weight.dtype, quant_type="nf4"
    )
    module.weight = bitsandbytes.nn.Params4bit(
        weight, requires_grad=False, quant_type="nf4", module=module
    ).to(weight.device)
    return fused_product([module], module)


def fused_int8_product(weight: Tensor) -> Any:
    """Return the product of our kernel with the weight in int8, x [rows, in] → partial results."""
    bitsandbytes: Any = importlib.import_module("bitsandbytes")
    outputs, inputs = weight.shape
    module = bitsandbytes.nn.Linear8bitLt(inputs, outputs, bias=False, has_fp16_weights=False, threshold=0.0)
    module.weight = bitsandbytes.nn.Int8Params(weight.cpu(), requires_grad=False).to(weight.device)
    return fused_product([module], module)


def fused_attention_over(
    query: Tensor, key: Tensor, value: Tensor, rows: int, used: int
) -> Callable[[], Tensor]:
    """Return the attention of `rows` rows of queries [kv_heads, group * rows, head_dim] over the first `used`
    of the positions of key and value [kv_heads, positions, head_dim].
    """
    positions = torch.arange(used - rows, used, device=query.device)
    queries = query.reshape(-1, rows, query.shape[-1]).transpose(0, 1).contiguous()
    scale = query.shape[-1] ** -0.5
    return lambda: fused_attention(queries, key[None], value[None], positions, key.shape[1], scale=scale)
