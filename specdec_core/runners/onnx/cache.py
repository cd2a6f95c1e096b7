"""A preallocated KV cache in the layout of ONNX Runtime's attention, rewound in O(1).

Knows nothing of token ids: it stores positions 0 to length − 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:  # a call needs onnxruntime
    from .call import Call, Chain

_ROUND_UP = 128


class OnnxCache:
    """Keys and values of one conversation: a RewindableCache.

    `states` is float32 [layers, 2, kv_heads, capacity, head_dim]: keys and values of each layer. `calls` are
    the forwards bound to these buffers, by number of rows and of rows whose logits are computed; `chain` are
    those of drafts in a row, and `values` the buffers as ONNX Runtime takes them.
    """

    def __init__(self, layers: int, kv_heads: int, head_dim: int) -> None:
        self.length = 0
        self.capacity = 0
        """Positions that the buffers have room for."""
        self.states = torch.zeros(layers, 2, kv_heads, 0, head_dim)
        self.calls: dict[tuple[int, int], Call] = {}
        self.chain: Chain | None = None
        self.values: list[Any] = []

    @property
    def size_bytes(self) -> int:
        """Bytes of the buffers."""
        return self.states.nbytes

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on; if fewer are stored, keep them."""
        self.length = min(self.length, length)

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions; the valid ones are copied if the buffers must grow."""
        if capacity <= self.capacity:
            return
        capacity = -(-capacity // _ROUND_UP) * _ROUND_UP
        layers, two, kv_heads, _, head_dim = self.states.shape
        larger = torch.zeros(layers, two, kv_heads, capacity, head_dim)
        larger[:, :, :, : self.length] = self.states[:, :, :, : self.length]
        self.states: Tensor = larger
        self.capacity = capacity
        self.unbind()  # from the smaller buffers

    def unbind(self) -> None:
        """Forget the forwards, which hold their session and the buffers."""
        self.calls.clear()
        self.chain = None
        self.values.clear()
