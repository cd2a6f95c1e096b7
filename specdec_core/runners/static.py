"""The static runner: a forward of fixed shapes over buffers that never move, as a CUDA graph needs it.

Keys and values are written at positions read from a device buffer, attention runs over the first `bucket`
positions under a mask, and grouped query heads are folded into rows, so that K and V are not expanded.
Families that the lean forward supports go through it, others through transformers' own modules. Knows nothing
of graphs: it runs on any device, and is tested on the CPU.
"""

from __future__ import annotations

import weakref
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from .base import RewindableCache, Then
from .fused_forward import FusedForward
from .lean_forward import MOST_FEW_ROWS, LeanForward, UnsupportedError, softcapped, visible
from .model_runner import ModelRunner
from .serving import slides_everywhere

ATTENTION = "specdec_folded"
FIRST_BUCKET = 512
"""Positions. Most conversations stay below; a larger bucket reads more of an empty cache in every step."""


def bucket_for(end: int) -> int:
    """Return the number of first positions that a forward up to position `end` attends to."""
    bucket = FIRST_BUCKET
    while bucket < end:
        bucket *= 2
    return bucket


class StaticLayer(CacheLayerMixin):
    """One layer's keys and values [1, kv_heads, capacity, head_dim], written at the window's positions."""

    is_sliding = False
    is_compileable = True
    keys: Tensor  # None, as transformers has it, until `is_initialized`
    values: Tensor

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers with the dtype, device and heads of the first states."""
        batch, heads, _, head_dim = key_states.shape
        shape = (batch, heads, self._window.capacity, head_dim)
        # Zeros, since a masked position has weight 0, and 0 times a stray NaN is NaN.
        self.keys = key_states.new_zeros(shape)
        self.values = value_states.new_zeros((*shape[:3], value_states.shape[-1]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Write states [1, kv_heads, rows, head_dim] at the window's positions; return the bucket's views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys.index_copy_(2, self._window.positions, key_states)
        self.values.index_copy_(2, self._window.positions, value_states)
        bucket = self._window.bucket
        return self.keys[:, :, :bucket], self.values[:, :, :bucket]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that a mask covers."""
        return self._window.bucket, 0

    def get_seq_length(self) -> int:
        """0: positions are passed in."""
        return 0

    def get_max_length(self) -> int:
        """Positions that the buffers have room for."""
        return self._window.capacity


class Window:
    """Positions [rows] that the next forward writes, and the number of first ones that it attends to."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.bucket = capacity
        self.positions = torch.empty(0, dtype=torch.int64)


class ParkedCache:
    """One conversation's place in a StaticRunner: its keys and values are in the runner's buffers while it is
    the one being answered, else parked here.
    """

    def __init__(self) -> None:
        self._length = 0
        self.parked: list[tuple[int, Tensor, Tensor]] = []
        """The layer, its keys and its values."""

    @property
    def length(self) -> int:
        """Positions stored."""
        return self._length

    def advance(self, rows: int) -> None:
        """Count `rows` more positions, which a forward has written."""
        self._length += rows

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on. Nothing happens if fewer are stored."""
        self._length = min(self._length, length)

    def reserve(self, capacity: int) -> None:
        """Do nothing: the runner's buffers grow by themselves."""

    @property
    def size_bytes(self) -> int:
        """Bytes of the parked copy."""
        return sum(keys.nbytes + values.nbytes for _, keys, values in self.parked)


class StaticRunner(ModelRunner):
    """A runner with buffers for one conversation at a time; the others are parked, by one copy of their
    positions for each change of conversation.

    Few rows go through the fused forward, more through the lean one, and all through the modules where these
    do not support the model or `why_unfused` and `why_modules` are reasons against them.
    """

    name = "static"

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        why_modules: str | None = None,
        why_unfused: str | None = None,
    ) -> None:
        super().__init__(model, vocab_size=vocab_size)
        text_config = model.config.get_text_config()
        self._sliding_window = getattr(text_config, "sliding_window", None)
        self._layer_types = set(getattr(text_config, "layer_types", None) or ())
        self._slides_everywhere = slides_everywhere(text_config)
        if unknown := sorted(self._layer_types - {"full_attention", "sliding_attention"}):
            raise UnsupportedError(f"there is no mask of fixed shape for layers of {', '.join(unknown)}")
        heads = text_config.num_attention_heads
        self._group = heads // (getattr(text_config, "num_key_value_heads", None) or heads)
        self.lean_forward: LeanForward | None = None
        self.why_modules = why_modules
        if why_modules is None:
            try:
                self.lean_forward = LeanForward(model, self.vocab_size)
            except UnsupportedError as error:
                self.why_modules = str(error)
        self.fused_forward: FusedForward | None = None
        self.why_unfused = why_unfused
        if self.lean_forward is not None and why_unfused is None:
            try:
                self.fused_forward = FusedForward(model, self.lean_forward)
            except UnsupportedError as error:
                self.why_unfused = str(error)
        AttentionInterface.register(ATTENTION, folded_attention)
        model.set_attn_implementation(ATTENTION)
        self._resident: weakref.ref[ParkedCache] | None = None
        self._allocate(FIRST_BUCKET)

    def new_cache(self) -> ParkedCache:
        """See Runner.new_cache."""
        return ParkedCache()

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        cache = cast(ParkedCache, cache)
        rows = ids.shape[0]
        end = cache.length + rows
        self._bring_in(cache, end)
        bucket = bucket_for(end)
        # Last rows alone, without a function of them, are a prompt's, whose length rarely comes again.
        prefills = last_rows > 0 and then is None
        if rows <= MOST_FEW_ROWS and not prefills:
            result = self._decode(ids, cache.length, bucket, last_rows, then)
        else:
            result = self.compute(ids, self.positions(cache.length, end), bucket, last_rows, then)
        cache.advance(rows)
        return result

    def _decode(self, ids: Tensor, start: int, bucket: int, last_rows: int, then: Then | None) -> Any:
        """The forward of few rows, which a subclass may replay from a graph."""
        return self.compute(ids, self.positions(start, start + ids.shape[0]), bucket, last_rows, then)

    def positions(self, start: int, end: int) -> Tensor:
        """Return the positions `start` to `end` − 1 on the runner's device."""
        return torch.arange(start, end, device=self.device)

    def compute(self, ids: Tensor, positions: Tensor, bucket: int, last_rows: int, then: Then | None) -> Any:
        """ids [rows] at positions [rows] → logits [rows or last_rows, vocab], or `then` of them. Has fixed
        shapes and does not synchronize.
        """
        self._window.positions, self._window.bucket = positions, bucket
        if self.fused_forward is not None and ids.shape[0] <= MOST_FEW_ROWS:
            logits = self.fused_forward(ids, positions, self._rope, self._layers, bucket, last_rows)
        elif self.lean_forward is not None:
            logits = self._lean_logits(self.lean_forward, ids, positions, bucket, last_rows)
        else:
            logits = self._modules_logits(
                self._buffers,
                ids,
                last_rows,
                attention_mask=self._masks(positions, bucket),
                position_ids=positions[None],
            )
        return logits if then is None else then(logits)

    def _lean_logits(
        self, lean: LeanForward, ids: Tensor, positions: Tensor, bucket: int, last_rows: int
    ) -> Tensor:
        cos, sin = (table.index_select(0, positions)[:, None] for table in self._rope)
        keys = torch.arange(bucket, device=self.device)
        masks = {attention: lean.mask(positions, keys, attention) for attention in lean.attentions}
        return lean(ids, cos, sin, self._layers, masks, last_rows)

    def _masks(self, positions: Tensor, bucket: int) -> Tensor | dict[str, Tensor]:
        """Boolean masks [1, 1, group * rows, bucket] for `folded_attention`; one for each type of layer if
        the model has several.
        """
        keys = torch.arange(bucket, device=self.device)
        window = self._sliding_window if self._slides_everywhere else None
        full = visible(positions, keys, window).repeat(self._group, 1)[None, None]
        if "sliding_attention" not in self._layer_types:
            return full
        near = visible(positions, keys, self._sliding_window).repeat(self._group, 1)[None, None]
        return {"full_attention": full, "sliding_attention": near}

    def _bring_in(self, cache: ParkedCache, end: int) -> None:
        """Make `cache` the resident one, with room for `end` positions."""
        resident = self._resident() if self._resident is not None else None
        if resident is not cache:
            # One whose return was cut short by a lack of memory is parked still.
            if resident is not None and not resident.parked:
                self._park(resident)
            self._resident = weakref.ref(cache)
        if end > self._window.capacity:
            if not cache.parked:
                self._park(cache)
            self._allocate(bucket_for(end))
        for at, keys, values in cache.parked:
            layer = self._layers[at]
            if not layer.is_initialized:
                layer.lazy_initialization(keys, values)
            layer.keys[:, :, : keys.shape[2]] = keys
            layer.values[:, :, : values.shape[2]] = values
        cache.parked = []

    def _park(self, cache: ParkedCache) -> None:
        valid = slice(0, cache.length)
        cache.parked = [
            (at, layer.keys[:, :, valid].clone(), layer.values[:, :, valid].clone())
            for at, layer in enumerate(self._layers)
            if layer.is_initialized and cache.length
        ]

    @torch.inference_mode()
    def discard(self, cache: RewindableCache) -> None:
        """See Runner.discard. Masked positions have weight 0, and 0 times NaN is NaN."""
        if self._resident is not None and self._resident() is cache:
            self._resident = None
            for layer in self._layers:
                if layer.is_initialized:
                    layer.keys.zero_()
                    layer.values.zero_()

    def _allocate(self, capacity: int) -> None:
        if self.lean_forward is not None:
            self._rope = self.lean_forward.rope(capacity)
        # Last, so that the capacity does not change if memory runs out before.
        self._window = Window(capacity)
        self._layers = [StaticLayer(self._window) for _ in self.stores]
        self._buffers = Cache(layers=[*self._layers])


def folded_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """query [1, heads, rows, d], key and value [1, kv_heads, bucket, d], mask [1, 1, group * rows, bucket] →
    [1, rows, heads, d]. The query heads that share a kv head become rows of one product (attention function
    in the shape of transformers' AttentionInterface). Raises UnsupportedError for sinks and biases.
    """
    if s_aux is not None or position_bias is not None:
        raise UnsupportedError("its attention has sinks or biases, for which there is no folded product")
    _, heads, rows, head_dim = query.shape
    kv_heads = key.shape[1]
    folded = query.reshape(1, kv_heads, -1, head_dim)
    scale = head_dim**-0.5 if scaling is None else scaling
    if softcap is None and rows > MOST_FEW_ROWS:
        mixed = scaled_dot_product_attention(folded, key, value, attention_mask, scale=scale)
    else:
        # The fused kernels leave most of a GPU idle for few rows, and none of them caps logits.
        scores = (folded @ key.transpose(-1, -2)).float()
        scores = scores * scale if softcap is None else softcapped(scores, softcap, scale)
        weights = scores.masked_fill(~attention_mask, -torch.inf).softmax(-1)
        mixed = weights.to(value.dtype) @ value
    return mixed.reshape(1, heads, rows, -1).transpose(1, 2).contiguous(), None
