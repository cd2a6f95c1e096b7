"""A preallocated KV cache that rewinds in O(1), in the shape that transformers' models ask for.

Knows nothing of token ids: it holds positions 0 to length − 1, and whoever fed them knows which.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

_ROUND_UP = 128


class RewindableLayer(CacheLayerMixin):
    """One layer's keys and values [1, kv_heads, capacity, head_dim], of which the first `length` count.

    Sliding-window layers are held whole too: the window is in the mask, and a ring cannot rewind.
    """

    is_sliding = False
    is_compileable = False

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.capacity = 0

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` positions. What is held is copied once if the room must be moved."""
        if capacity <= self.capacity:
            return
        self.capacity = -(-capacity // _ROUND_UP) * _ROUND_UP
        if self.keys is not None:
            self.keys = self._moved(self.keys)
            self.values = self._moved(self.values)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._room_like(key_states)
        self.values = self._room_like(value_states)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[-2]
        if end > self.capacity:
            self.reserve(max(end, 2 * self.capacity))
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    @property
    def size_bytes(self) -> int:
        return 0 if self.keys is None else self.keys.nbytes + self.values.nbytes

    def _room_like(self, states: Tensor) -> Tensor:
        batch, heads, _, head_dim = states.shape
        return torch.empty((batch, heads, self.capacity, head_dim), dtype=states.dtype, device=states.device)

    def _moved(self, states: Tensor) -> Tensor:
        room = self._room_like(states)
        room[:, :, : self.length] = states[:, :, : self.length]
        return room


class KVCache(Cache):
    """All layers of one model for one session."""

    def __init__(self, layer_count: int) -> None:
        super().__init__(layers=[RewindableLayer() for _ in range(layer_count)])

    @property
    def length(self) -> int:
        """Positions held."""
        return self.layers[0].length

    def rewind(self, length: int) -> None:
        """Forgets every position from `length` on; one that is longer than what is held changes nothing.

        A forward that broke off left its first layers longer than the rest: all go back to the shortest.
        """
        length = min(length, *(layer.length for layer in self.layers))
        for layer in self.layers:
            layer.length = length

    def reserve(self, capacity: int) -> None:
        for layer in self.layers:
            layer.reserve(capacity)

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)
