"""Decode step of the target for many conversations at once, each at its own position.

Keeps the final state of every position, which is what the drafter learns from. Knows nothing of sampling.
"""

import torch
from torch import Tensor
from torch.nn import functional

from .attention import Attention
from .layers import rms_norm, turn
from .target import Target


class Decoder:
    """Preallocated caches and states of `slots` conversations; a step writes them in place."""

    def __init__(self, target: Target, slots: int, max_positions: int, attend: Attention):
        shape = target.shape

        def zeros(*size: int) -> Tensor:
            return torch.zeros(slots, *size, dtype=target.dtype, device=target.device)

        self.target = target
        self._attend = attend
        self._keys, self._values = (
            [zeros(shape.kv_heads, max_positions, shape.head_dim) for _ in target.layers] for _ in "kv"
        )
        self.states = zeros(max_positions, shape.hidden)
        self._rows = torch.arange(slots, device=target.device)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Feed one token `[slots]` at its position `[slots]`; return the final states `[slots, hidden]`.

        Positions before it must have been fed. What stands at later ones is not read.
        """
        target, shape = self.target, self.target.shape
        heads, turned_heads = shape.heads, shape.heads + shape.kv_heads
        cos, sin = target.rotary.cos[positions][:, None], target.rotary.sin[positions][:, None]
        x = target.embedding[tokens]
        for layer, keys, values in zip(target.layers, self._keys, self._values, strict=True):
            qkv = functional.linear(rms_norm(x, layer.input_norm, shape), layer.qkv)
            qkv = qkv.view(len(tokens), turned_heads + shape.kv_heads, shape.head_dim)
            turned = turn(qkv[:, :turned_heads], cos, sin)
            keys[self._rows, :, positions] = turned[:, heads:]
            values[self._rows, :, positions] = qkv[:, turned_heads:]
            x = torch.addmm(x, self._attend(turned[:, :heads], keys, values, positions), layer.out.T)
            gate, up = functional.linear(rms_norm(x, layer.post_norm, shape), layer.gate_up).chunk(2, -1)
            x = torch.addmm(x, functional.silu(gate) * up, layer.down.T)
        states = rms_norm(x, target.norm, shape)
        self.states[self._rows, positions] = states
        return states
