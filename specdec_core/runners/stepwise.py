"""The stepwise runner: the steps of transformers' own generate, for models whose state cannot be rewound.

Each prompt is prefilled anew, in one forward. Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache

from .base import RewindableCache, Then
from .model_runner import ModelRunner
from .serving import takes_dynamic_cache


class StepwiseState:
    """The ids of one conversation, and what the model returned to be passed to its next step."""

    def __init__(self, device: torch.device) -> None:
        self.ids = torch.empty(0, dtype=torch.int64, device=device)
        self.inputs: dict[str, Any] = {}

    @property
    def length(self) -> int:
        """Positions computed."""
        return self.ids.shape[0]

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensors in the state."""
        return _bytes(self.inputs)

    def rewind(self, length: int) -> None:
        """Forget everything if any position is to be forgotten."""
        if length < self.length:
            self.ids, self.inputs = self.ids[:0], {}

    def reserve(self, capacity: int) -> None:
        """Do nothing: the state grows by itself or not at all."""


class StepwiseRunner(ModelRunner):
    """Computes one row after the other behind a prompt; works wherever transformers generates."""

    name = "stepwise"
    rewinds = False
    # These models do not continue a prefill by a second one.
    prefill_chunk = sys.maxsize

    def new_cache(self) -> StepwiseState:
        """See Runner.new_cache."""
        return StepwiseState(self.device)

    @torch.inference_mode()
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""
        state = cast(StepwiseState, cache)
        steps = ids.split(1) if state.inputs else [ids]
        logits = torch.cat([self._step(state, step, last_rows) for step in steps])[-last_rows:]
        return logits if then is None else then(logits)

    def _step(self, state: StepwiseState, ids: Tensor, last_rows: int) -> Tensor:
        """Logits [rows or last_rows, vocab] of a prompt, or of the one row after it, as in generate."""
        model: Any = self.model  # whose methods of generate are not in its annotations
        inputs, state.inputs = state.inputs, {}  # an interrupted step leaves a state that is of no use
        first = not inputs
        if first:
            inputs["use_cache"] = True
            if takes_dynamic_cache(type(model)):
                inputs[self.cache_argument] = DynamicCache(config=model.config)
        all_ids = torch.cat([state.ids, ids])[None]
        if self.takes_positions:
            inputs["position_ids"] = torch.arange(all_ids.shape[1], device=self.device)[None]
        prepared = model.prepare_inputs_for_generation(
            all_ids,
            next_sequence_length=None if first else 1,
            attention_mask=torch.ones_like(all_ids),
            is_first_iteration=first,
            **inputs,
        )
        rows = last_rows or ids.shape[0]
        if self.keeps_last_rows:
            prepared["logits_to_keep"] = rows
        output = model(**prepared, return_dict=True)
        state.inputs = model._update_model_kwargs_for_generation(output, inputs)
        state.ids = all_ids[0]
        return output.logits[0, -rows:, : self.vocab_size]


def _bytes(value: Any) -> int:
    """Bytes of the tensors in nested mappings, sequences and caches."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Cache):
        return sum(_bytes(vars(layer)) for layer in value.layers)
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0
