"""The eager runner: one transformers model, fed token ids, answering logits, over a rewindable cache.

Works for any decoder-only transformers model whose state is a KV cache. Knows nothing of text, sampling
or speculation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import LoadError
from .clock import clock_for
from .few_rows import use_few_rows
from .kv_cache import KVCache

Then = Callable[[Tensor], Any]
"""What is made of a forward's logits. On a device it may be captured with the forward: it keeps to buffers
that never move, and where it is a method, then of an object that lives as long as the pair.
"""

PREFILL_CHUNK = 512
_REWINDABLE_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


class EagerRunner:
    """`vocab_size` cuts the logits to the tokenizer's ids where the model's own width is padded; `reason`
    says why no faster runner took the model, `device` where a model over several devices puts out its logits.
    """

    name = "eager"
    captures = False
    """Whether the first forward of a kind takes longer, because it is captured."""

    def __init__(
        self,
        model: torch.nn.Module,
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
        self.device: torch.device = device or model.get_input_embeddings().weight.device
        self.clock = clock_for(self.device)

    def new_cache(self) -> KVCache:
        return KVCache(self.layer_count)

    def ids(self, ids: Sequence[int]) -> Tensor:
        """ids as int64 on the runner's device, without waiting for it."""
        host = torch.tensor(ids, dtype=torch.int64)
        return host.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else host

    @torch.inference_mode()
    def forward(self, cache: KVCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None) -> Any:
        """Feeds ids [rows] after what the cache holds; logits [rows, vocab] in the model's dtype, or what
        `then` makes of them.

        With `last_rows`, logits of only that many last rows are computed.
        """
        logits = self._logits(cache, ids, last_rows)
        return logits if then is None else then(logits)

    def _logits(self, cache: KVCache, ids: Tensor, last_rows: int) -> Tensor:
        held = {self._cache_argument: cache}
        output = self.model(input_ids=ids[None], **held, use_cache=True, logits_to_keep=last_rows)
        return output.logits[0, :, : self.vocab_size]

    def prefill(
        self, cache: KVCache, ids: Sequence[int], stopped: Callable[[], bool] | None = None
    ) -> Tensor | None:
        """Feeds ids in chunks, asking `stopped` before each; the last row's logits [1, vocab], or None if
        it was stopped.
        """
        logits = None
        for chunk in self.ids(ids).split(PREFILL_CHUNK):
            if stopped is not None and stopped():
                return None
            logits = self.forward(cache, chunk, last_rows=1)
        return logits
