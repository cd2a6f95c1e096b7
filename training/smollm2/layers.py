"""Llama layers as functions of tensors, shared by the target, its decode step and the drafter.

Knows neither where weights come from nor how they are trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """Dimensions and constants of a Llama model with grouped heads and tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    eps: float
    theta: float

    @property
    def group(self) -> int:
        """Query heads for each key and value head."""
        return self.heads // self.kv_heads

    @property
    def attention_scale(self) -> float:
        """Factor on the attention scores, 1 / sqrt(head_dim)."""
        return self.head_dim**-0.5

    @property
    def qkv_rows(self) -> list[int]:
        """Rows of the query, key and value projections in the joined matrix."""
        return [rows * self.head_dim for rows in (self.heads, self.kv_heads, self.kv_heads)]


class Layer(NamedTuple):
    """Weights of one layer; the query, key and value projections are joined, and so are gate and up."""

    input_norm: Tensor  # [hidden]
    qkv: Tensor  # [(heads + 2 * kv_heads) * head_dim, hidden]
    out: Tensor  # [hidden, heads * head_dim]
    post_norm: Tensor  # [hidden]
    gate_up: Tensor  # [2 * ffn, hidden]
    down: Tensor  # [hidden, ffn]


@dataclass(frozen=True)
class Rotary:
    """Tables of the rotary embedding `[positions, head_dim]`; the first half of the sines is negated."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def table(cls, shape: Shape, positions: int, device: torch.device, dtype: torch.dtype) -> "Rotary":
        """Compute the tables for `positions` positions."""
        half = shape.head_dim // 2
        exponents = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
        frequencies = shape.theta**-exponents
        angle = torch.arange(positions, device=device)[:, None].float() * frequencies.repeat(2)
        sin = angle.sin()
        return cls(angle.cos().to(dtype), torch.cat([-sin[:, :half], sin[:, half:]], 1).to(dtype))


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the last dimension of `x` by table rows that broadcast against it."""
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


def rms_norm(x: Tensor, weight: Tensor, shape: Shape) -> Tensor:
    """RMSNorm of x `[..., hidden]` with the model's epsilon."""
    return functional.rms_norm(x, (shape.hidden,), weight, shape.eps)


def run_layers(x: Tensor, layers: Sequence[Layer], rotary: Rotary, shape: Shape) -> Tensor:
    """Run embedded tokens `[rows, length, hidden]` through layers, causally, and return the same shape."""
    rows, length, _ = x.shape
    heads, kv_heads, dim = shape.heads, shape.kv_heads, shape.head_dim
    cos, sin = rotary.cos[:length], rotary.sin[:length]
    for layer in layers:
        qkv = functional.linear(rms_norm(x, layer.input_norm, shape), layer.qkv)
        qkv = qkv.view(rows, length, heads + 2 * kv_heads, dim).transpose(1, 2)
        turned = turn(qkv[:, : heads + kv_heads], cos, sin)
        key, value = (
            each[:, :, None].expand(-1, -1, shape.group, -1, -1).reshape(rows, heads, length, dim)
            for each in (turned[:, heads:], qkv[:, heads + kv_heads :])
        )
        mixed = functional.scaled_dot_product_attention(turned[:, :heads], key, value, is_causal=True)
        x = x + functional.linear(mixed.transpose(1, 2).reshape(rows, length, -1), layer.out)
        gate, up = functional.linear(rms_norm(x, layer.post_norm, shape), layer.gate_up).chunk(2, -1)
        x = x + functional.linear(functional.silu(gate) * up, layer.down)
    return x
