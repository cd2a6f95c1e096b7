"""Attention of one query position a conversation over its cache, as a Triton kernel.

Reads only the cached positions, where a mask over the whole cache would read all. Needs triton at import:
import it only where CUDA is used.
"""

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor

# Triton takes plain numbers for its constants.
# pyright: reportArgumentType=false

BLOCK = 64
"""Cached positions read at once."""
QUERY_ROWS = tl.constexpr(16)
"""Smallest operand of tl.dot: the query heads of a group are padded to it."""


@triton.jit
def _attend(
    query,
    keys,
    values,
    positions,
    out,
    query_stride,
    capacity,
    scale,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # One program a conversation and a key head: its GROUP query rows over positions 0 to `positions`.
    slot, head = tl.program_id(0), tl.program_id(1)
    count = (tl.load(positions + slot) + 1).to(tl.int32)
    g, d, j = tl.arange(0, QUERY_ROWS), tl.arange(0, DIM), tl.arange(0, BLOCK)
    row = head * GROUP + g
    in_group = g[:, None] < GROUP
    x = tl.load(query + slot * query_stride + row[:, None] * DIM + d[None, :], mask=in_group, other=0.0)
    base = (slot * KV_HEADS + head).to(tl.int64) * capacity * DIM
    largest = tl.full([QUERY_ROWS], -1e30, tl.float32)
    total = tl.zeros([QUERY_ROWS], tl.float32)
    mixed = tl.zeros([QUERY_ROWS, DIM], tl.float32)
    for start in range(0, count, BLOCK):
        cached = start + j < count
        key = tl.load(keys + base + (start + j)[None, :] * DIM + d[:, None], mask=cached[None, :], other=0.0)
        score = tl.where(cached[None, :], tl.dot(x, key) * scale, -1e30)
        top = tl.maximum(largest, tl.max(score, 1))
        p = tl.exp(score - top[:, None])
        shrink = tl.exp(largest - top)
        value = tl.load(
            values + base + (start + j)[:, None] * DIM + d[None, :], mask=cached[:, None], other=0.0
        )
        mixed = mixed * shrink[:, None] + tl.dot(p.to(value.dtype), value)
        total = total * shrink + tl.sum(p, 1)
        largest = top
    y = (mixed / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + slot * KV_HEADS * GROUP * DIM + row[:, None] * DIM + d[None, :], y, mask=in_group)


def triton_attention(query: Tensor, keys: Tensor, values: Tensor, positions: Tensor) -> Tensor:
    """Return `[slots, heads * head_dim]`; the arguments are those of `attention.torch_attention`."""
    slots, heads, dim = query.shape
    kv_heads, capacity = keys.shape[1], keys.shape[2]
    out = torch.empty(slots, heads * dim, device=query.device, dtype=query.dtype)
    _attend[(slots, kv_heads)](  # pyright: ignore[reportIndexIssue]
        query,
        keys,
        values,
        positions,
        out,
        query.stride(0),
        capacity,
        dim**-0.5,
        KV_HEADS=kv_heads,
        GROUP=heads // kv_heads,
        DIM=dim,
        BLOCK=BLOCK,
    )
    return out
