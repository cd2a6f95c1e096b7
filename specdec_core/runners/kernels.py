"""Triton kernels for the few rows of decoding and verification on a GPU.

Between the products of a layer: residual and norm; rotation and cache; attention (two); activation. They sum
in float32. Importing this module needs Triton. Knows nothing of models.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Triton's functions are compiled from their source and have no useful types.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false

PLAIN, INT8, NF4 = 0, 1, 2
"""Formats of a weight in `product`."""
SILU, GELU_TANH, GELU = 0, 1, 2
"""Activations of `activate`."""

NF4_BLOCK = 64
"""Weights that share an absmax."""


@triton.jit
def _ordered(at, size, HALVES: tl.constexpr):
    """Place of element `at` in a row of `size`: its own, or even elements first and odd ones behind."""
    if HALVES:
        at = (at % 2) * (size // 2) + at // 2
    return at


@triton.jit
def _summed(parts, at, mask, part_stride, PARTS: tl.constexpr):
    """Sum of partial results at the offsets `at`, in float32; unrolled, so that their loads overlap."""
    total = tl.load(parts + at, mask=mask, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        total += tl.load(parts + part * part_stride + at, mask=mask, other=0.0).to(tl.float32)
    return total


@triton.jit(do_not_specialize=["rows"])
def add_and_norm(
    x,  # [rows, size] float32, the residual stream; written
    ids,  # [rows], with EMBEDS
    embedding,  # [vocab, size], with EMBEDS
    embedding_scale,
    parts,  # [PARTS, rows, size], added to x unless EMBEDS
    added_weight,  # [size] float32, the norm of what is added, with NORMS_ADDED
    weight,  # [size] float32
    normed,  # [rows, size]; written
    rows,
    size,
    eps,
    PARTS: tl.constexpr,
    EMBEDS: tl.constexpr,
    NORMS_ADDED: tl.constexpr,
    HALVES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add the last product to the residual stream (or look up the embedding), and normalize (RMSNorm)."""
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    mask = at < size
    if EMBEDS:
        token = tl.load(ids + row)
        value = tl.load(embedding + token * size + at, mask=mask, other=0.0)
        value = (value.to(tl.float32) * embedding_scale).to(embedding.dtype.element_ty).to(tl.float32)
    else:
        added = _summed(parts, row * size + at, mask, rows * size, PARTS)
        if NORMS_ADDED:
            scale = 1.0 / tl.sqrt(tl.sum(added * added) / size + eps)
            added = added * scale * tl.load(added_weight + at, mask=mask, other=0.0)
        value = tl.load(x + row * size + at, mask=mask, other=0.0) + added
    tl.store(x + row * size + at, value, mask=mask)
    scale = 1.0 / tl.sqrt(tl.sum(value * value) / size + eps)
    result = value * scale * tl.load(weight + at, mask=mask, other=0.0)
    place = _ordered(at, size, HALVES)
    tl.store(normed + row * size + place, result.to(normed.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def rotate_and_store(
    parts,  # [PARTS, rows, heads + 2 kv_heads, HEAD_DIM]: queries, keys, values
    bias,  # [heads + 2 kv_heads, HEAD_DIM], with HAS_BIAS
    query_weight,  # [HEAD_DIM] float32, with NORMS_HEADS
    key_weight,
    cos,  # [capacity, HEAD_DIM]
    sin,  # [capacity, HEAD_DIM], with the rotation's sign
    positions,  # [rows]
    queries,  # [rows, heads, HEAD_DIM]; written
    keys,  # [kv_heads, capacity, HEAD_DIM]; written at `positions`
    values,
    rows,
    heads,
    kv_heads,
    capacity,
    eps,
    PARTS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    NORMS_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rotate queries and keys, and write keys and values into the cache. One program a row and head."""
    row, head = tl.program_id(0), tl.program_id(1)
    all_heads = heads + 2 * kv_heads
    at = tl.arange(0, BLOCK)
    mask = at < HEAD_DIM
    position = tl.load(positions + row)
    start = (row * all_heads + head) * HEAD_DIM
    part_stride = rows * all_heads * HEAD_DIM
    own = _summed(parts, start + at, mask, part_stride, PARTS)
    if HAS_BIAS:
        own += tl.load(bias + head * HEAD_DIM + at, mask=mask, other=0.0).to(tl.float32)
    if head >= heads + kv_heads:
        value_place = ((head - heads - kv_heads) * capacity + position) * HEAD_DIM
        tl.store(values + value_place + at, own.to(values.dtype.element_ty), mask=mask)
    else:
        across = (at + HEAD_DIM // 2) % HEAD_DIM
        other = _summed(parts, start + across, mask, part_stride, PARTS)
        if HAS_BIAS:
            other += tl.load(bias + head * HEAD_DIM + across, mask=mask, other=0.0).to(tl.float32)
        if NORMS_HEADS:
            scale = 1.0 / tl.sqrt(tl.sum(own * own) / HEAD_DIM + eps)
            weight = query_weight if head < heads else key_weight
            own *= scale * tl.load(weight + at, mask=mask, other=0.0)
            other *= scale * tl.load(weight + across, mask=mask, other=0.0)
        turn = position * HEAD_DIM + at
        rotated = own * tl.load(cos + turn, mask=mask, other=0.0).to(tl.float32)
        rotated += other * tl.load(sin + turn, mask=mask, other=0.0).to(tl.float32)
        if head < heads:
            query_place = (row * heads + head) * HEAD_DIM
            tl.store(queries + query_place + at, rotated.to(queries.dtype.element_ty), mask=mask)
        else:
            key_place = ((head - heads) * capacity + position) * HEAD_DIM
            tl.store(keys + key_place + at, rotated.to(keys.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def attend(
    queries,  # [rows, heads, HEAD_DIM]
    keys,  # [kv_heads, capacity, HEAD_DIM]
    values,
    positions,  # [rows], ascending
    mixed,  # [splits, rows, heads, HEAD_DIM] float32; written
    peaks,  # [splits, rows, heads] float32; written
    sums,  # [splits, rows, heads] float32; written
    rows,
    kv_heads,
    capacity,
    scale,
    softcap,
    window,
    split_size,
    GROUP: tl.constexpr,
    CAPS: tl.constexpr,
    SLIDES: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Causal attention of a block of rows over one split of the cache (FlashDecoding, Dao et al. 2023).

    The GROUP query heads that share a key head are rows of one product. Programs: [kv_heads, splits, blocks].
    """
    kv_head, split, block = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    folded = block * BLOCK_R + tl.arange(0, BLOCK_R)
    row = folded // GROUP
    head = kv_head * GROUP + folded % GROUP
    heads = kv_heads * GROUP
    in_rows = row < rows
    dim = tl.arange(0, BLOCK_D)
    in_dim = dim < HEAD_DIM
    position = tl.load(positions + row, mask=in_rows, other=0).to(tl.int32)
    place = row * heads + head
    query = tl.load(
        queries + place[:, None] * HEAD_DIM + dim[None, :], mask=in_rows[:, None] & in_dim[None, :], other=0.0
    )
    begin = split * split_size
    end = tl.minimum(begin + split_size, tl.load(positions + rows - 1).to(tl.int32) + 1)
    if SLIDES:
        first = tl.load(positions).to(tl.int32) - window + 1
        begin = tl.maximum(begin, (tl.maximum(first, 0) // BLOCK_K) * BLOCK_K)
    peak = tl.full([BLOCK_R], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    result = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    base = kv_head * capacity
    for start in range(begin, end, BLOCK_K):
        at = start + tl.arange(0, BLOCK_K)
        in_keys = at < end
        key = tl.load(
            keys + (base + at[None, :]) * HEAD_DIM + dim[:, None],
            mask=in_keys[None, :] & in_dim[:, None],
            other=0.0,
        )
        scores = tl.dot(query, key, input_precision="ieee") * scale
        if CAPS:
            # tanh by exp, whose argument is never positive
            ratio = scores / softcap
            shrunk = tl.exp(-2.0 * tl.abs(ratio))
            bounded = (1.0 - shrunk) / (1.0 + shrunk)
            scores = tl.where(ratio < 0, -bounded, bounded) * softcap
        allowed = in_keys[None, :] & (at[None, :] <= position[:, None])
        if SLIDES:
            allowed = allowed & (at[None, :] > position[:, None] - window)
        scores = tl.where(allowed, scores, -float("inf"))
        higher = tl.maximum(peak, tl.max(scores, 1))
        shift = tl.where(higher == -float("inf"), 0.0, higher)
        weights = tl.exp(scores - shift[:, None])
        kept = tl.exp(peak - shift)
        total = total * kept + tl.sum(weights, 1)
        value = tl.load(
            values + (base + at[:, None]) * HEAD_DIM + dim[None, :],
            mask=in_keys[:, None] & in_dim[None, :],
            other=0.0,
        )
        result = result * kept[:, None]
        result += tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        peak = higher
    place += split * rows * heads
    tl.store(peaks + place, peak, mask=in_rows)
    tl.store(sums + place, total, mask=in_rows)
    tl.store(
        mixed + place[:, None] * HEAD_DIM + dim[None, :], result, mask=in_rows[:, None] & in_dim[None, :]
    )


@triton.jit(do_not_specialize=["rows", "splits"])
def combine(
    mixed,  # [splits, rows, heads, HEAD_DIM] float32
    peaks,  # [splits, rows, heads] float32
    sums,
    out,  # [rows, heads * HEAD_DIM]; written
    rows,
    heads,
    splits,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_S: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Combine the splits of `attend`. One program a row and head."""
    row, head = tl.program_id(0), tl.program_id(1)
    split = tl.arange(0, BLOCK_S)
    in_splits = split < splits
    dim = tl.arange(0, BLOCK_D)
    in_dim = dim < HEAD_DIM
    place = (split * rows + row) * heads + head
    peak = tl.load(peaks + place, mask=in_splits, other=-float("inf"))
    total = tl.load(sums + place, mask=in_splits, other=0.0)
    weight = tl.exp(peak - tl.max(peak))
    parts = tl.load(
        mixed + place[:, None] * HEAD_DIM + dim[None, :], mask=in_splits[:, None] & in_dim[None, :], other=0.0
    )
    result = tl.sum(parts * weight[:, None], 0) / tl.sum(total * weight)
    at = _ordered(head * HEAD_DIM + dim, heads * HEAD_DIM, HALVES)
    tl.store(out + row * heads * HEAD_DIM + at, result.to(out.dtype.element_ty), mask=in_dim)


@triton.jit(do_not_specialize=["rows"])
def activate(
    parts,  # [PARTS, rows, 2 size]: gate, up
    out,  # [rows, size]; written
    rows,
    size,
    PARTS: tl.constexpr,
    KIND: tl.constexpr,
    HALVES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Activation of the gate times up."""
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < size
    start = row * 2 * size
    part_stride = rows * 2 * size
    gate = _summed(parts, start + at, mask, part_stride, PARTS)
    up = _summed(parts, start + size + at, mask, part_stride, PARTS)
    if KIND == 0:
        gate = gate * tl.sigmoid(gate)
    elif KIND == 1:
        # 0.5 (1 + tanh z) is the logistic function of 2 z.
        gate = gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate))
    else:
        gate = 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    place = _ordered(at, size, HALVES)
    tl.store(out + row * size + place, (gate * up).to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["rows"])
def product(
    x,  # [rows, k]; for NF4 even elements first, odd ones behind
    weight,  # [n, k]; for NF4 [n, k / 2] bytes, the even element in the high four bits
    scales,  # INT8: [n] float32; NF4: [n, k / NF4_BLOCK] float32
    code,  # NF4: its 16 values, float32
    parts,  # [splits, rows, n] float32; written
    rows,
    n,
    k,
    split_size,
    FORMAT: tl.constexpr,
    LOOKUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """x @ weight.T over one split of k, for at most BLOCK_M rows. Programs: [n / BLOCK_N, splits].

    All rows are computed alike, whatever their number.
    """
    row = tl.arange(0, BLOCK_M)
    in_rows = row < rows
    out = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    in_n = out < n
    begin = tl.program_id(1) * split_size
    end = tl.minimum(begin + split_size, k)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if FORMAT == 2:
        half = tl.arange(0, 32)
        bytes_at = weight + out[None, :].to(tl.int64) * (k // 2) + half[:, None]
        x_at = x + row[:, None] * k + half[None, :]
        scale_at = scales + out * (k // 64)
        for start in range(begin, end, 64):
            packed = tl.load(bytes_at + start // 2, mask=in_n[None, :], other=0)
            even = tl.load(x_at + start // 2, mask=in_rows[:, None], other=0.0)
            odd = tl.load(x_at + k // 2 + start // 2, mask=in_rows[:, None], other=0.0)
            scale = tl.load(scale_at + start // 64, mask=in_n, other=0.0)
            if LOOKUP == "":
                high = tl.load(code + (packed >> 4).to(tl.int32)).to(x.dtype.element_ty)
                low = tl.load(code + (packed & 15).to(tl.int32)).to(x.dtype.element_ty)
            else:
                high, low = tl.inline_asm_elementwise(
                    LOOKUP,
                    "=r,=r,=r,=r,r",
                    [packed],
                    dtype=(x.dtype.element_ty, x.dtype.element_ty),
                    is_pure=True,
                    pack=4,
                )
            block = tl.dot(even, high, input_precision="ieee")
            block = tl.dot(odd, low, block, input_precision="ieee")
            total += block * scale[None, :]
    else:
        inner = tl.arange(0, BLOCK_K)
        weight_at = weight + out[None, :].to(tl.int64) * k + inner[:, None]
        x_at = x + row[:, None] * k + inner[None, :]
        for start in range(begin, end, BLOCK_K):
            in_k = start + inner < end
            part = tl.load(weight_at + start, mask=in_n[None, :] & in_k[:, None], other=0.0)
            rows_part = tl.load(x_at + start, mask=in_rows[:, None] & in_k[None, :], other=0.0)
            total = tl.dot(rows_part, part.to(x.dtype.element_ty), total, input_precision="ieee")
        if FORMAT == 1:
            total *= tl.load(scales + out, mask=in_n, other=0.0)[None, :]
    place = (tl.program_id(1) * rows + row[:, None]) * n + out[None, :]
    tl.store(parts + place, total, mask=in_rows[:, None] & in_n[None, :])


INTERPRETED = not isinstance(product, triton.JITFunction)
"""True under TRITON_INTERPRET=1, with which the kernels run on a CPU, slowly."""
