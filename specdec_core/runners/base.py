"""The interface of a runner: one model that is fed token ids and puts out logits, over caches that rewind.

Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

Format = Literal["float32", "int8", "int4"]
"""Format of the weights of products on a CPU."""
Then = Callable[[Tensor], Any]
"""A function of a forward's logits. On a device it may be captured with the forward: it keeps to buffers that
never move, and a method belongs to an object that lives as long as the pair.
"""


@dataclass(frozen=True, slots=True)
class Step:
    """A kind of forward of few rows: the arguments of Runner.forward that its graph depends on."""

    rows: int
    last_rows: int
    then: Then | None


class Clock(Protocol):
    """Time between two points of the decode loop."""

    def mark(self) -> Any:
        """Return the present point, without waiting for a device."""
        ...

    def seconds(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks."""
        ...


class RewindableCache(Protocol):
    """Keys and values, or another state, of positions 0 to `length` − 1 of one conversation."""

    @property
    def length(self) -> int:
        """Positions stored."""
        ...

    @property
    def size_bytes(self) -> int:
        """Memory that this conversation's keys and values take apart from the runner's own buffers."""
        ...

    def rewind(self, length: int) -> None:
        """Forget every position from `length` on, in O(1), and all others too if the runner does not rewind.
        Nothing happens if fewer are stored.
        """
        ...

    def reserve(self, capacity: int) -> None:
        """Make room for `capacity` positions, so that nothing grows while an answer is decoded."""
        ...


class Runner(Protocol):
    """A model with its forward. A cache belongs to the runner that made it, and is passed to no other."""

    @property
    def name(self) -> str:
        """The kind of runner: "eager", "stepwise", "lean", "onnx", "static" or "cuda graph"."""
        ...

    @property
    def reason(self) -> str | None:
        """Reason why no faster runner took the model, or why this one became slower; None without one."""
        ...

    @property
    def rewinds(self) -> bool:
        """True if a cache can forget its last positions alone, so that drafts can be taken back."""
        ...

    @property
    def keeps_modules(self) -> bool:
        """True if the transformers model still has its weights. One that a CPU quantized gave them up."""
        ...

    @property
    def same_rows(self) -> bool | None:
        """True if a row's logits were the same bit for bit beside any number of rows; None if not tried."""
        ...

    @property
    def weights_bytes(self) -> int:
        """Memory of the weights: the transformers model's, and the runner's copies."""
        ...

    @property
    def weights(self) -> Format:
        """Format of the weights that the runner has of its own: "float32", "int8" or "int4"; "float32" for
        those of the model, whatever they are.
        """
        ...

    @property
    def step_bytes(self) -> int | None:
        """Bytes of its own weights that a one-row step reads; None where it reads the model's."""
        ...

    @property
    def threads(self) -> int | None:
        """Threads that a forward computes on, where the runner chose them; None where torch's are used."""
        ...

    @property
    def captures(self) -> bool:
        """True if the first forward of a kind is captured as a graph, and so takes longer."""
        ...

    @property
    def captured(self) -> int:
        """Graphs captured so far."""
        ...

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model whose weights are used. See `keeps_modules`."""
        ...

    @property
    def vocab_size(self) -> int:
        """Width of the logits."""
        ...

    @property
    def context_length(self) -> int:
        """Positions that the model was made for."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the ids and the logits."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that forwards are timed with."""
        ...

    def new_cache(self) -> RewindableCache:
        """Return an empty cache for one conversation."""
        ...

    def discard(self, cache: RewindableCache) -> None:
        """Leave nothing of a cache in buffers that conversations share, where NaN would spoil the others."""
        ...

    def prepare(self, cache: RewindableCache, steps: Collection[Step], end: int) -> None:
        """Do now what the first of these steps up to position `end` would pause for. Between rounds only: the
        steps are run, over any ids, after what the cache holds.
        """
        ...

    @property
    def unsettled(self) -> bool:
        """True if another number of threads may suit the machine's present load better."""
        ...

    def use_threads(self, threads: int) -> None:
        """Compute on so many threads from the next forward on, where the runner can choose. A row's logits
        may change in their last bits, so this is for times when no answer is in progress.
        """
        ...

    def drop_bare_graphs(self) -> None:
        """Forget what was captured without a function of the logits, which only measurements use."""
        ...

    def ids(self, ids: Sequence[int]) -> Tensor:
        """Return ids as int64 [rows] on the runner's device, without waiting for it."""
        ...

    def forward(
        self, cache: RewindableCache, ids: Tensor, *, last_rows: int = 0, then: Then | None = None
    ) -> Any:
        """Feed ids [rows] after what the cache holds. Return logits [rows, vocab] in the model's dtype, or
        what `then` returns for them. With `last_rows`, only that many last rows' logits are computed. The
        next forward with as many rows of logits may overwrite the result.
        """
        ...

    def chain(self, cache: RewindableCache, ids: Tensor, thens: Iterable[Then]) -> None:
        """Feed ids [rows], then what the first function returns for the last row's logits [1, vocab], ids
        [1], and so on: a forward for each function, which are asked for one by one.
        """
        ...

    def prefill(
        self, cache: RewindableCache, ids: Sequence[int], stopped: Callable[[], bool] | None = None
    ) -> Tensor | None:
        """Feed ids in chunks, polling `stopped` before each. Return the last row's logits [1, vocab], or None
        if it was stopped.
        """
        ...
