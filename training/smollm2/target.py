"""The target: SmolLM2's weights read from GGUF, and its forward over whole conversations.

Knows nothing of sampling: the decode step is in `decoder`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .gguf_weights import GgufWeights
from .layers import Layer, Rotary, Shape, rms_norm, run_layers


@dataclass(frozen=True)
class Target:
    """Weights in one type on one device, and rotary tables for the positions that are used."""

    shape: Shape
    layers: list[Layer]
    embedding: Tensor  # [vocab, hidden], the output layer too
    norm: Tensor
    rotary: Rotary

    @classmethod
    def load(cls, weights: GgufWeights, shape: Shape, positions: int, dtype: torch.dtype) -> "Target":
        """Dequantize the weights to `dtype`."""

        def unpermuted(matrix: Tensor) -> Tensor:
            # GGUF keeps the pairs that are rotated together side by side; here they are half a head apart.
            pairs = matrix.reshape(-1, shape.head_dim // 2, 2, shape.hidden)
            return pairs.transpose(1, 2).reshape(-1, shape.hidden)

        layers = []
        for index in range(shape.layers):
            read = _reader(weights, index)
            layer = Layer(
                input_norm=read("attn_norm"),
                qkv=torch.cat([unpermuted(read("attn_q")), unpermuted(read("attn_k")), read("attn_v")]),
                out=read("attn_output"),
                post_norm=read("ffn_norm"),
                gate_up=torch.cat([read("ffn_gate"), read("ffn_up")]),
                down=read("ffn_down"),
            )
            layers.append(Layer(*(weight.to(dtype).contiguous() for weight in layer)))
        return cls(
            shape,
            layers,
            weights.read("token_embd.weight").to(dtype),
            weights.read("output_norm.weight").to(dtype),
            Rotary.table(shape, positions, weights.data.device, dtype),
        )

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.embedding.dtype

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return self.embedding.numel() + sum(weight.numel() for layer in self.layers for weight in layer)

    def states(self, ids: Tensor) -> Tensor:
        """Return the normed final states of `ids` `[rows, length]` as `[rows, length, hidden]`.

        A state times the transposed embedding is the next token's logits.
        """
        x = run_layers(self.embedding[ids], self.layers, self.rotary, self.shape)
        return rms_norm(x, self.norm, self.shape)

    def reference_states(self, ids: Tensor) -> Tensor:
        """Return the final states `[length, hidden]` of one sequence, in float32 with elementary operations.

        Shares no code with `states` and the decode step, because both are checked against it.
        """
        shape, length = self.shape, len(ids)
        half = shape.head_dim // 2
        frequencies = 1 / shape.theta ** (
            torch.arange(0, shape.head_dim, 2, device=self.device).float() / shape.head_dim
        )
        angle = torch.outer(torch.arange(length, device=self.device).float(), frequencies)
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]

        def norm(x: Tensor, weight: Tensor) -> Tensor:
            return x / (x.pow(2).mean(-1, keepdim=True) + shape.eps).sqrt() * weight.float()

        def turn(x: Tensor) -> Tensor:
            low, high = x[..., :half], x[..., half:]
            return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)

        future = torch.ones(length, length, device=self.device, dtype=torch.bool).triu(1)
        x = self.embedding[ids].float()
        for layer in self.layers:
            qkv = norm(x, layer.input_norm) @ layer.qkv.float().T
            query, key, value = (
                each.view(length, -1, shape.head_dim) for each in qkv.split(shape.qkv_rows, -1)
            )
            query, key = turn(query), turn(key)
            mixed = []
            for head in range(shape.heads):
                score = query[:, head] @ key[:, head // shape.group].T * shape.attention_scale
                mixed.append(score.masked_fill(future, -math.inf).softmax(-1) @ value[:, head // shape.group])
            x = x + torch.cat(mixed, -1) @ layer.out.float().T
            gate, up = (norm(x, layer.post_norm) @ layer.gate_up.float().T).chunk(2, -1)
            x = x + (gate * gate.sigmoid() * up) @ layer.down.float().T
        return norm(x, self.norm)


def _reader(weights: GgufWeights, index: int) -> Callable[[str], Tensor]:
    return lambda name: weights.read(f"blk.{index}.{name}.weight")
