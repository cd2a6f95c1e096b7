"""Common base of the runners: the model's sizes, device, clock, and the modules' own forward.

Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import LoadError
from .base import Clock, RewindableCache, Then
from .clock import clock_for
from .few_rows import use_few_rows

PREFILL_CHUNK = 512
_REWINDABLE_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class ModelRunner(ABC):
    """The common part of all runners. Subclasses add the cache and the forward.

    `vocab_size` cuts the logits to the tokenizer's ids where the model's own width is padded; `reason` says
    why no faster runner took the model; `device` is where a model over several devices puts out its logits.
    Raises LoadError for layers that cannot be rewound, or if the context length is unknown.
    """

    name: str
    captures = False

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        vocab_size: int | None = None,
        context_length: int | None = None,
        reason: str | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.reason = reason
        self.model = model.eval()
        # transformers renamed it in 5.24; the old name goes with 5.40.
        named = "cache" in inspect.signature(model.forward).parameters
        self._cache_argument = "cache" if named else "past_key_values"
        use_few_rows(self.model)
        config = model.config.get_text_config()
        if unfit := sorted(set(getattr(config, "layer_types", None) or ()) - _REWINDABLE_LAYERS):
            raise LoadError(
                f"{config.model_type} keeps state that cannot be rewound ({', '.join(unfit)}), so drafts "
                "could not be taken back. Choose a model whose layers are all attention."
            )
        self.layer_count: int = config.num_hidden_layers
        self.vocab_size: int = vocab_size or config.vocab_size
        positions = context_length or getattr(config, "max_position_embeddings", None)
        if positions is None:
            raise LoadError(
                f"The configuration of {config.model_type} does not say how many positions it was made for "
                "(max_position_embeddings). Choose another model."
            )
        self.context_length: int = positions
        embedding: Any = model.get_input_embeddings()
        self.device: torch.device = device or embedding.weight.device
        self.clock: Clock = clock_for(self.device)

    @property
    def captured(self) -> int:
        """Graphs captured so far."""
        return 0

    @abstractmethod
    def new_cache(self) -> RewindableCache:
        """Return an empty cache for one conversation."""

    @abstractmethod
    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """See Runner.forward."""

    def ids(self, ids: Sequence[int]) -> Tensor:
        """See Runner.ids."""
        host = torch.tensor(ids, dtype=torch.int64)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    def prefill(
        self, cache: RewindableCache, ids: Sequence[int], stopped: Callable[[], bool] | None = None
    ) -> Tensor | None:
        """See Runner.prefill."""
        logits = None
        for chunk in self.ids(ids).split(PREFILL_CHUNK):
            if stopped is not None and stopped():
                return None
            logits = self.forward(cache, chunk, last_rows=1)
        return logits

    def _modules_logits(self, cache: object, ids: Tensor, last_rows: int, **inputs: Any) -> Tensor:
        """Logits [rows or last_rows, vocab] of transformers' own modules over one of its caches."""
        output = self.model(
            input_ids=ids[None],
            **{self._cache_argument: cache},
            **inputs,
            use_cache=True,
            logits_to_keep=last_rows,
        )
        return output.logits[0, :, : self.vocab_size]
