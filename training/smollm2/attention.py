"""Attention of the decode step: torch's over a mask, or the Triton kernel where it is available and right.

Knows nothing of the model's layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .layers import Shape
from .run_log import RunLog

Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

MAX_ERROR = 0.03
"""Largest absolute difference from float32 attention over values of variance 1, in bfloat16."""


def torch_attention(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Attend from one position a slot to positions 0 to `positions` of its cache.

    query `[slots, heads, head_dim]` (rows may be strided), keys and values `[slots, kv_heads, capacity,
    head_dim]`, positions `[slots]`; returns `[slots, heads * head_dim]`.
    """
    slots, kv_heads, capacity, dim = keys.shape
    grouped = query.reshape(slots, kv_heads, -1, dim)
    mask = (torch.arange(capacity, device=query.device) <= positions[:, None])[:, None, None]
    mask = mask.expand(slots, 1, grouped.shape[2], capacity)
    return functional.scaled_dot_product_attention(grouped, keys, values, mask).reshape(slots, -1)


def choose_attention(
    shape: Shape, max_positions: int, device: torch.device, dtype: torch.dtype, log: RunLog
) -> Attention:
    """Return the Triton kernel after a check of its results, or torch's attention; log which and why."""
    if device.type != "cuda":
        return torch_attention
    try:
        from .triton_attention import triton_attention

        error = attention_error(triton_attention, shape, max_positions, device, dtype)
    except Exception as failure:  # a compiler has many ways to fail; torch's attention needs none
        log.write("attention", message=f"Triton not used: {failure!r}"[:400])
        return torch_attention
    log.write("attention", kernel="triton", error=error)
    return triton_attention if error < MAX_ERROR else torch_attention


def attention_error(
    attend: Attention, shape: Shape, max_positions: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Return the largest difference from torch's attention in float32, at the ends of the cache too."""

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, device=device, dtype=dtype)

    # Queries are a slice of the joined projection in the decode step, hence the stride.
    query = normal(8, shape.heads + shape.kv_heads, shape.head_dim)[:, : shape.heads]
    keys, values = (normal(8, shape.kv_heads, max_positions, shape.head_dim) for _ in "kv")
    positions = torch.randint(0, max_positions, (8,), device=device)
    positions[0], positions[1], positions[2] = 0, max_positions - 1, min(63, max_positions - 1)
    expected = torch_attention(query.float(), keys.float(), values.float(), positions)
    return float((attend(query, keys, values, positions).float() - expected).abs().max())
