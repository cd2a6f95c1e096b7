"""The products and the attention of the fused forward as functions that the GPU checks time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runners.fused_attention import fused_attention
from ..runners.fused_products import Product, fused_product
from .gpu_shapes import int8_layer, nf4_layer


def fused_nf4_product(weight: Tensor) -> Product:
    """Return the product of our kernel with the weight in NF4, x [rows, in] → partial results."""
    return _fused(nf4_layer(_linear(weight)))


def fused_int8_product(weight: Tensor) -> Product:
    """Return the product of our kernel with the weight in int8, x [rows, in] → partial results."""
    return _fused(int8_layer(_linear(weight)))


def _fused(layer: torch.nn.Module) -> Product:
    return fused_product([layer], layer)


def _linear(weight: Tensor) -> torch.nn.Linear:
    outputs, inputs = weight.shape
    linear = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    return linear


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
