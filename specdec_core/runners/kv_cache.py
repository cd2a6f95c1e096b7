"""A preallocated KV cache that rewinds in O(1), in the shape that transformers' models ask for.

Knows nothing of token ids: it stores positions 0 to length − 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import Cache, CacheLayerMixin

_ROUND_UP = 128


class RewindableLayer(CacheLayerMixin):
    """One layer's keys and values [1, kv_heads, capacity, head_dim], of which the first `length` are valid.

    Sliding-window layers are stored whole too: the window is in the mask, and a ring buffer cannot rewind.
    """

    is_sliding = False
    is_compileable = False
    keys: Tensor  # None, as transformers has it, until `is_initialized`
    values: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self.capacity = 0

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions; the valid ones are copied if the buffers must grow."""
        if capacity <= self.capacity:
            return
        capacity = -(-capacity // _ROUND_UP) * _ROUND_UP
        if self.is_initialized:
            # Assigned together: if memory runs out, the layer stays as it is.
            self.keys, self.values = self._grown(self.keys, capacity), self._grown(self.values, capacity)
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers with the dtype, device and heads of the first states."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._empty_like(key_states, self.capacity)
        self.values = self._empty_like(value_states, self.capacity)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append states [1, kv_heads, rows, head_dim]. Returns views of all valid keys and values."""
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
        """Length and offset of the keys that a mask for `query_length` more queries covers."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Valid positions."""
        return self.length

    def get_max_length(self) -> int:
        """−1: there is no limit."""
        return -1

    @property
    def size_bytes(self) -> int:
        """Bytes of the buffers."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0

    def _empty_like(self, states: Tensor, capacity: int) -> Tensor:
        batch, heads, _, head_dim = states.shape
        return torch.empty((batch, heads, capacity, head_dim), dtype=states.dtype, device=states.device)

    def _grown(self, states: Tensor, capacity: int) -> Tensor:
        larger = self._empty_like(states, capacity)
        larger[:, :, : self.length] = states[:, :, : self.length]
        return larger


class KVCache(Cache):
    """All layers of one model for one conversation: a RewindableCache.

    `stores` tells for each layer whether it stores anything: layers without attention do not, nor those that
    read the keys and values of another one.
    """

    def __init__(self, stores: Sequence[bool]) -> None:
        self.storing = [RewindableLayer() for stored in stores if stored]
        storing = iter(self.storing)
        super().__init__(layers=[next(storing) if stored else cache_utils.DummyLayer() for stored in stores])

    @property
    def length(self) -> int:
        """Positions stored."""
        return self.storing[0].length

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on; if fewer are stored, keep them.

        In any case all layers end up equally long: an interrupted forward leaves its first layers longer.
        """
        length = min(length, *(layer.length for layer in self.storing))
        for layer in self.storing:
            layer.length = length

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions in every layer."""
        for layer in self.storing:
            layer.reserve(capacity)

    @property
    def size_bytes(self) -> int:
        """Bytes of the buffers of all layers."""
        return sum(layer.size_bytes for layer in self.storing)
