"""Attention of few rows over a static cache, in two Triton kernels: over splits of it, and their combination.

torch's own kernels leave most of a GPU idle for few rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .fused_kernels import kernels_for, power_of_two

_SPLIT_POSITIONS = 64
"""Positions of a split: fewer give more programs, until the combination costs more than they gain."""
_MOST_SPLITS = 64
_LEAST_DIMENSION = 16
"""Triton compiles no product with a shorter side."""


def fused_attention(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: Tensor,
    bucket: int,
    *,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    halves: bool = False,
) -> Tensor:
    """Causal attention of rotated queries [rows, heads, head_dim] at positions [rows], ascending and below
    `bucket`, over keys and values [1, kv_heads, capacity, head_dim].

    Returns [rows, heads * head_dim], with `halves` the even elements first.
    """
    kernels = kernels_for(queries.device)
    rows, heads, head_dim = queries.shape
    _, kv_heads, capacity, _ = keys.shape
    group = heads // kv_heads
    split_size = max(_SPLIT_POSITIONS, bucket // _MOST_SPLITS)
    splits = -(-bucket // split_size)
    mixed = queries.new_empty(splits, rows, heads, head_dim, dtype=torch.float32)
    peaks, sums = queries.new_empty(2, splits, rows, heads, dtype=torch.float32)
    # Both bounded by the shared memory of a multiprocessor.
    wide = head_dim > 128
    block = min(32 if wide else 64, max(16, power_of_two(rows * group)))
    dims = {"HEAD_DIM": head_dim, "BLOCK_D": max(_LEAST_DIMENSION, power_of_two(head_dim))}
    kernels.attend[(kv_heads, splits, -(-rows * group // block))](
        queries,
        keys,
        values,
        positions,
        mixed,
        peaks,
        sums,
        rows,
        kv_heads,
        capacity,
        scale,
        softcap or 1.0,
        window or 0,
        split_size,
        GROUP=group,
        CAPS=softcap is not None,
        SLIDES=window is not None,
        BLOCK_R=block,
        BLOCK_K=32 if wide else 64,
        num_warps=4,
        num_stages=2,
        **dims,
    )
    out = queries.new_empty(rows, heads * head_dim)
    kernels.combine[(rows, heads)](
        mixed,
        peaks,
        sums,
        out,
        rows,
        heads,
        splits,
        BLOCK_S=power_of_two(splits),
        HALVES=halves,
        num_warps=2,
        **dims,
    )
    return out
