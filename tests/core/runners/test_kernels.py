"""The Triton kernels, through Triton's interpreter, beside torch: norm, rotation, activation, product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, rms_norm, silu

from tests.support.triton_kernels import evens_first

pytestmark = pytest.mark.usefixtures("interpreter")

EPS = 1e-5
POISON = -77.0
"""Of an output before the kernel, and of a row behind it that no kernel may touch."""


@pytest.fixture
def kernels():
    from specdec_core.runners import kernels

    return kernels


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, POISON, dtype=dtype)


class Residual:
    """Random arguments of `add_and_norm`. Not a power of two, so that a block is not full."""

    rows, size = 3, 48

    def __init__(self, parts: int = 1, dtype: torch.dtype = torch.float32) -> None:
        self.x = torch.randn(self.rows + 1, self.size)
        self.ids = torch.tensor([4, 0, 4])
        self.embedding = torch.randn(5, self.size).to(dtype)
        self.parts = torch.randn(parts, self.rows, self.size)
        self.added_weight, self.weight = torch.randn(2, self.size)
        self.normed = poisoned(self.rows + 1, self.size, dtype=dtype)
        self.before = self.x.clone()

    def run(self, kernels, *, embeds=False, norms_added=False, halves=False, scale=1.0) -> None:
        kernels.add_and_norm[(self.rows,)](
            self.x,
            self.ids,
            self.embedding,
            scale,
            self.parts,
            self.added_weight,
            self.weight,
            self.normed,
            self.rows,
            self.size,
            EPS,
            PARTS=self.parts.shape[0],
            EMBEDS=embeds,
            NORMS_ADDED=norms_added,
            HALVES=halves,
            BLOCK=64,
        )

    def check(self, stream: Tensor, order=lambda row: row) -> None:
        torch.testing.assert_close(self.x[: self.rows], stream)
        wanted = order(rms_norm(stream, (self.size,), self.weight, EPS))
        torch.testing.assert_close(self.normed[: self.rows], wanted.to(self.normed.dtype))
        assert torch.equal(self.x[self.rows], self.before[self.rows])
        assert (self.normed[self.rows] == POISON).all()


@pytest.mark.parametrize("parts", [1, 2, 8])
@pytest.mark.parametrize("norms_added", [False, True], ids=["as it is", "normalized"])
def test_a_product_is_added_to_the_stream_and_the_sum_normalized(kernels, parts, norms_added):
    residual = Residual(parts)
    residual.run(kernels, norms_added=norms_added)
    added = residual.parts.sum(0)
    if norms_added:
        added = rms_norm(added, (residual.size,), residual.added_weight, EPS)
    residual.check(residual.before[: residual.rows] + added)


def test_embeddings_are_scaled_in_their_own_precision(kernels):
    residual = Residual(dtype=torch.float16)
    residual.run(kernels, embeds=True, scale=6.92)
    residual.check((residual.embedding[residual.ids] * 6.92).float())


@pytest.mark.parametrize("embeds", [False, True])
def test_what_is_normalized_may_come_with_its_even_elements_first(kernels, embeds):
    residual = Residual()
    residual.run(kernels, embeds=embeds, halves=True)
    stream = residual.embedding[residual.ids] if embeds else residual.before[:3] + residual.parts[0]
    residual.check(stream, evens_first)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """transformers' rotation of x [rows, heads, d] with cos and sin [rows, d]."""
    low, high = x.chunk(2, -1)
    return x * cos[:, None] + torch.cat([-high, low], -1) * sin[:, None]


@pytest.mark.parametrize("biased", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("norms_heads", [False, True], ids=["", "norms"])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 1, 32), (2, 2, 48)])
def test_heads_are_rotated_and_the_cache_is_written_at_the_positions(
    kernels, biased, norms_heads, heads, kv_heads, head_dim
):
    rows, capacity, parts = 3, 16, 2
    every = heads + 2 * kv_heads
    qkv = torch.randn(parts, rows, every, head_dim)
    bias = torch.randn(every, head_dim)
    query_weight, key_weight = torch.randn(2, head_dim)
    cos, sin = torch.randn(2, capacity, head_dim)
    signed = torch.cat([-sin[:, : head_dim // 2], sin[:, head_dim // 2 :]], -1)
    positions = torch.arange(7, 7 + rows)
    queries = poisoned(rows + 1, heads, head_dim)
    keys, values = poisoned(2, kv_heads + 1, capacity, head_dim)
    kernels.rotate_and_store[(rows, every)](
        qkv,
        bias if biased else qkv,
        query_weight if norms_heads else qkv,
        key_weight if norms_heads else qkv,
        cos,
        signed,
        positions,
        queries,
        keys,
        values,
        rows,
        heads,
        kv_heads,
        capacity,
        EPS,
        PARTS=parts,
        HAS_BIAS=biased,
        NORMS_HEADS=norms_heads,
        HEAD_DIM=head_dim,
        BLOCK=64,
    )
    q, k, v = (qkv.sum(0) + (bias if biased else 0)).split([heads, kv_heads, kv_heads], 1)
    if norms_heads:
        q, k = (rms_norm(x, (head_dim,), w, EPS) for x, w in ((q, query_weight), (k, key_weight)))
    turns = cos[positions], sin[positions]
    wanted_queries, wanted_keys, wanted_values = (torch.full_like(x, POISON) for x in (queries, keys, values))
    wanted_queries[:rows] = rotated(q, *turns)
    wanted_keys[:kv_heads, positions] = rotated(k, *turns).transpose(0, 1)
    wanted_values[:kv_heads, positions] = v.transpose(0, 1)
    torch.testing.assert_close(queries, wanted_queries)
    torch.testing.assert_close(keys, wanted_keys)
    torch.testing.assert_close(values, wanted_values)


ACTIVATIONS = {"SILU": silu, "GELU_TANH": lambda x: gelu(x, approximate="tanh"), "GELU": gelu}


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("halves", [False, True], ids=["", "halves"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_activated_gate_is_multiplied_with_up(kernels, kind, parts, halves, dtype):
    rows, size = 2, 48  # three blocks
    both = 4 * torch.randn(parts, rows, 2 * size)
    out = poisoned(rows + 1, size, dtype=dtype)
    kernels.activate[(rows, 3)](
        both, out, rows, size, PARTS=parts, KIND=getattr(kernels, kind), HALVES=halves, BLOCK=16
    )
    gate, up = both.sum(0).chunk(2, -1)
    wanted = ACTIVATIONS[kind](gate) * up
    torch.testing.assert_close(out[:rows], (evens_first(wanted) if halves else wanted).to(dtype))
    assert (out[rows] == POISON).all()


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_large_gates_do_not_overflow(kernels, kind):
    gate = torch.tensor([-1e4, -100.0, -30.0, 0.0, 30.0, 100.0, 1e4, 1.0])
    both = torch.cat([gate, torch.ones(8)])[None, None]
    out = poisoned(1, 8)
    kernels.activate[(1, 1)](both, out, 1, 8, PARTS=1, KIND=getattr(kernels, kind), HALVES=False, BLOCK=8)
    torch.testing.assert_close(out[0], ACTIVATIONS[kind](gate))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_plain_product_is_split_along_k(kernels, dtype):
    rows, n, k, split_size = 3, 70, 170, 96  # no whole blocks in n, in a split and in the last split
    x, weight = torch.randn(rows, k).to(dtype), torch.randn(n, k).to(dtype)
    parts = poisoned(3, rows, n)
    kernels.product[(2, 2)](
        x,
        weight,
        parts,
        parts,
        parts,
        rows,
        n,
        k,
        split_size,
        FORMAT=kernels.PLAIN,
        LOOKUP="",
        BLOCK_M=16,
        BLOCK_N=64,
        BLOCK_K=64,
    )
    for at, columns in enumerate((slice(0, split_size), slice(split_size, k))):
        wanted = x[:, columns].float() @ weight[:, columns].float().T
        torch.testing.assert_close(parts[at], wanted, atol=1e-4, rtol=1e-4)
    assert (parts[2] == POISON).all()
