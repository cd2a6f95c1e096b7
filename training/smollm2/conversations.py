"""Storage of conversations on the device, with the target's states that predict their answers.

Knows neither how conversations are written nor what learns from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .inputs import Conversation
from .target import Target

MIN_ANSWER = 8
"""Tokens of the shortest answer that is kept."""


@dataclass(frozen=True)
class Selection:
    """Some conversations of a store, int64 `[conversations]` each."""

    lengths: np.ndarray
    answer_starts: np.ndarray
    id_offsets: np.ndarray
    state_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, which: np.ndarray | slice) -> "Selection":
        return Selection(*(field[which] for field in self.fields))

    @property
    def fields(self) -> tuple[np.ndarray, ...]:
        """The arrays that describe the selection."""
        return self.lengths, self.answer_starts, self.id_offsets, self.state_offsets

    @property
    def answer_tokens(self) -> int:
        """Number of tokens of the answers."""
        return int((self.lengths - self.answer_starts).sum())


@dataclass(frozen=True)
class Batch:
    """Conversations side by side; every answer token has a position that predicts it and a state."""

    ids: Tensor  # [conversations, length], zeros after the end
    positions: Tensor  # [answer tokens], into the flattened ids
    state_rows: Tensor  # [answer tokens], into the store's states


class ConversationStore:
    """Flat arrays of ids, and of the states at positions `answer_start - 1` to `length - 2`.

    The capacity is fixed, because growing would need twice the memory for a moment.
    """

    def __init__(self, target: Target, id_capacity: int, state_capacity: int):
        self._device = target.device
        self.ids = torch.zeros(id_capacity, dtype=torch.int32, device=target.device)
        self.states = torch.empty(
            state_capacity, target.shape.hidden, dtype=target.dtype, device=target.device
        )
        self.seen: set[int] = set()  # hashes of the conversations; those added here are not added again
        width = len(target.rotary.cos) + 1
        generator = torch.Generator().manual_seed(7)
        self._hash_factors = torch.randint(-(2**62), 2**62, (width,), generator=generator).to(target.device)
        self._lengths: list[int] = []
        self._answer_starts: list[int] = []
        self._id_offsets = [0]
        self._state_offsets = [0]

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def answer_tokens(self) -> int:
        """Number of answer tokens stored."""
        return self._state_offsets[-1]

    @property
    def used_ids(self) -> Tensor:
        """Ids of all stored conversations, one after the other."""
        return self.ids[: self._id_offsets[-1]]

    def add(self, ids: Tensor, states: Tensor, lengths: Sequence[int], answer_starts: Sequence[int]) -> bool:
        """Add conversations `ids` `[c, width]` with `states` `[c, at least width - 1, hidden]`.

        Skips duplicates and answers shorter than MIN_ANSWER. Returns False, and adds nothing, where the
        store has no room for all of them.
        """
        kept = []
        for row, key in enumerate(self._hashes(ids, torch.tensor(lengths, device=self._device)).tolist()):
            if key not in self.seen and lengths[row] - answer_starts[row] >= MIN_ANSWER:
                self.seen.add(key)
                kept.append(row)
        if not kept:
            return True
        lengths = [lengths[row] for row in kept]
        answer_starts = [answer_starts[row] for row in kept]
        id_start, state_start = self._id_offsets[-1], self._state_offsets[-1]
        id_end = id_start + sum(lengths)
        state_end = state_start + sum(lengths) - sum(answer_starts)
        if id_end > len(self.ids) or state_end > len(self.states):
            return False
        rows = torch.tensor(kept, device=self._device)
        length = torch.tensor(lengths, device=self._device)[:, None]
        start = torch.tensor(answer_starts, device=self._device)[:, None]
        place = torch.arange(ids.shape[1], device=self._device)
        self.ids[id_start:id_end] = ids[rows][place < length].int()
        place = place[: states.shape[1]]
        self.states[state_start:state_end] = states[rows][(place >= start - 1) & (place < length - 1)]
        for total, answer_start in zip(lengths, answer_starts, strict=True):
            self._lengths.append(total)
            self._answer_starts.append(answer_start)
            self._id_offsets.append(self._id_offsets[-1] + total)
            self._state_offsets.append(self._state_offsets[-1] + total - answer_start)
        return True

    def _hashes(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Return a 64-bit hash `[rows]` of the first `lengths` ids of each row, whatever follows them."""
        place = torch.arange(ids.shape[1], device=self._device)
        terms = (ids.long() + 1) * self._hash_factors[: ids.shape[1]]
        return (terms * (place < lengths[:, None])).sum(1)

    def add_texts(self, target: Target, conversations: Sequence[Conversation], rows: int = 64) -> None:
        """Add conversations with states from the target's forward, `rows` of them at once."""
        ordered = sorted(conversations, key=lambda each: len(each.ids))
        for at in range(0, len(ordered), rows):
            part = ordered[at : at + rows]
            ids = torch.zeros(len(part), len(part[-1].ids), dtype=torch.long)
            for row, conversation in zip(ids, part, strict=True):
                row[: len(conversation.ids)] = torch.tensor(conversation.ids)
            ids = ids.to(self._device)
            lengths, starts = [len(each.ids) for each in part], [each.answer_start for each in part]
            self.add(ids, target.states(ids), lengths, starts)

    def truncate(self, count: int) -> None:
        """Drop all but the first `count` conversations."""
        del self._lengths[count:], self._answer_starts[count:]
        del self._id_offsets[count + 1 :], self._state_offsets[count + 1 :]

    def select(self, which: np.ndarray | slice = slice(None)) -> Selection:
        """Return a selection of the stored conversations, all by default."""
        fields = self._lengths, self._answer_starts, self._id_offsets[:-1], self._state_offsets[:-1]
        return Selection(*(np.array(field, np.int64) for field in fields))[which]

    def batch(self, selection: Selection) -> Batch:
        """Gather conversations on the device, without a synchronization with the host."""
        count, width = len(selection), int(selection.lengths.max())
        answers = selection.lengths - selection.answer_starts
        ranks = np.concatenate([[0], np.cumsum(answers)[:-1]])
        packed = torch.from_numpy(np.stack([*selection.fields, ranks]))
        if self._device.type == "cuda":
            packed = packed.pin_memory()
        length, start, id_offset, state_offset, first = packed.to(self._device, non_blocking=True)
        place = torch.arange(width, device=self._device)
        flat = (id_offset[:, None] + place).clamp_max(len(self.ids) - 1)
        ids = torch.where(place < length[:, None], self.ids[flat].long(), 0)
        row = torch.repeat_interleave(
            torch.arange(count, device=self._device), length - start, output_size=selection.answer_tokens
        )
        rank = torch.arange(selection.answer_tokens, device=self._device) - first[row]
        return Batch(ids, row * width + start[row] - 1 + rank, state_offset[row] + rank)
