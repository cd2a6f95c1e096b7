"""Attention of few rows by the kernels, through Triton's interpreter, beside torch's in double precision."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from specdec_core.runners.fused_attention import fused_attention
from specdec_core.runners.lean_forward import softcapped, visible
from tests.support.triton_kernels import evens_first

pytestmark = pytest.mark.usefixtures("interpreter")


@dataclass(frozen=True)
class Case:
    """Shapes of an attention. The cache is as long as twice the bucket, and NaN behind the last position."""

    rows: int = 5
    end: int = 40  # positions with those of the rows
    bucket: int = 64
    kv_heads: int = 1
    group: int = 3
    head_dim: int = 32
    window: int | None = None
    softcap: float | None = None
    dtype: torch.dtype = torch.float32


def _attended(case: Case, halves: bool = False) -> tuple[Tensor, Tensor]:
    """The kernels' result and the expected one, both [rows, heads * head_dim]."""
    heads = case.kv_heads * case.group
    queries = (2 * torch.randn(case.rows, heads, case.head_dim)).to(case.dtype)
    cache = torch.randn(2, 1, case.kv_heads, 2 * case.bucket, case.head_dim).to(case.dtype)
    cache[..., case.end :, :] = torch.nan
    keys, values = cache
    positions = torch.arange(case.end - case.rows, case.end)
    got = fused_attention(
        queries,
        keys,
        values,
        positions,
        case.bucket,
        scale=case.head_dim**-0.5,
        softcap=case.softcap,
        window=case.window,
        halves=halves,
    )
    k, v = (x[0, :, : case.end].double().repeat_interleave(case.group, 0) for x in (keys, values))
    scores = queries.double().transpose(0, 1) @ k.transpose(1, 2) * case.head_dim**-0.5
    if case.softcap is not None:
        scores = softcapped(scores, case.softcap)
    scores = scores.masked_fill(~visible(positions, torch.arange(case.end), case.window), -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(case.rows, -1)
    return got, mixed.to(case.dtype)


CASES = {
    "one row": Case(rows=1),
    "the first row": Case(rows=1, end=1),
    "all of the bucket": Case(end=64),
    "one head a group": Case(group=1, kv_heads=2),
    "two key heads": Case(group=2, kv_heads=2),
    "several blocks of rows": Case(rows=17, group=4),
    "two splits": Case(end=66, bucket=128),
    "most of the bucket is empty": Case(end=70, bucket=512),
    "long splits": Case(rows=2, end=130, bucket=8192),
    "a window beyond the context": Case(window=64),
    "a window shorter than the rows": Case(window=2),
    "a window of one": Case(window=1, end=65, bucket=128),
    "a window that begins with a split": Case(rows=2, end=140, bucket=256, window=75),
    "a window that begins before a split": Case(rows=2, end=140, bucket=256, window=76),
    "a window within the last split": Case(rows=2, end=140, bucket=256, window=8),
    "a window that ends a split": Case(rows=2, end=128, bucket=128, window=9),
    "capped": Case(softcap=5.0),
    "capped and windowed": Case(softcap=5.0, window=9, end=70, bucket=128),
    "heads of 48": Case(head_dim=48),
    "heads of 160": Case(head_dim=160, end=70, bucket=128),
    "half precision": Case(dtype=torch.float16, end=66, bucket=128),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_row_attends_to_the_positions_that_it_sees(case):
    got, wanted = _attended(case)
    accuracy = 1e-5 if case.dtype == torch.float32 else 2e-3
    torch.testing.assert_close(got, wanted, atol=accuracy, rtol=accuracy)


def test_the_result_may_come_with_its_even_elements_first():
    got, wanted = _attended(Case(), halves=True)
    torch.testing.assert_close(got, evens_first(wanted))


def test_a_large_score_does_not_overflow():
    queries = torch.full((1, 1, 32), 300.0)
    keys = torch.full((1, 1, 64, 32), 300.0)
    values = torch.randn(1, 1, 64, 32)
    got = fused_attention(queries, keys, values, torch.tensor([63]), 64, scale=1.0)
    torch.testing.assert_close(got[0], values[0, 0].mean(0))


def test_a_row_comes_out_alike_whatever_the_rows_behind_it():
    cache = torch.randn(2, 1, 1, 256, 32)
    queries = torch.randn(9, 2, 32)
    positions = torch.arange(60, 69)

    def attended(rows: int) -> Tensor:
        return fused_attention(queries[:rows], *cache, positions[:rows], 128, scale=0.2)

    together = attended(9)
    assert all(torch.equal(together[:rows], attended(rows)) for rows in (1, 5))
