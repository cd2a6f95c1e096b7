"""State of the conversations that are written at once, advanced by one sampled token each.

Everything is a tensor on the device and no value is read back, so that a step can be a CUDA graph. Knows
nothing of models.
"""

import torch
from torch import Tensor

from .inputs import Template

MIN_REQUEST = 5
"""Tokens of a request, its end included; a shorter one is dropped."""
MAX_REQUEST = 70
"""Tokens after which a request that does not end is dropped."""


class Slots:
    """One conversation a slot, each at its own position.

    A slot samples a request until the end token, is fed the bridge, and samples an answer until the end
    token or the last position. A dropped request starts the slot anew. A finished slot stands still until
    `restart`.
    """

    def __init__(self, count: int, max_positions: int, template: Template, device: torch.device):
        def zeros(*size: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(*size, dtype=dtype, device=device)

        self.template = template
        self.max_positions = max_positions
        self.prefix_length = len(template.prefix)
        self.ids = zeros(count, max_positions + 1)
        self.ids[:, : self.prefix_length] = torch.tensor(template.prefix, device=device)
        self.current = zeros(count)  # the token that is fed next
        self.positions = zeros(count)  # and its position
        self.answering = zeros(count, dtype=torch.bool)
        self.bridge_left = zeros(count)  # bridge tokens still to be fed
        self.answer_start = zeros(count)
        self.finished = zeros(count, dtype=torch.bool)
        self._bridge = torch.tensor(template.bridge, device=device)
        self._rows = torch.arange(count, device=device)
        self.restart(slice(None))

    def __len__(self) -> int:
        return len(self.current)

    def restart(self, which: Tensor | slice) -> None:
        """Put slots back to the last token of the prefix."""
        self.current[which] = self.template.prefix[-1]
        self.positions[which] = self.prefix_length - 1
        self.answering[which] = False
        self.bridge_left[which] = 0
        self.finished[which] = False

    def advance(self, sampled: Tensor) -> None:
        """Append one token to every unfinished slot: the bridge's where that is due, else the sampled one."""
        bridge_length = len(self._bridge)
        active, forced = ~self.finished, self.bridge_left > 0
        place = (bridge_length - self.bridge_left).clamp(0, bridge_length - 1)
        token = torch.where(forced, self._bridge[place], sampled)
        length = self.positions + 2  # with the appended token
        request_length = length - self.prefix_length
        ended = (token == self.template.end) & ~forced
        closed = active & ~self.answering & ended
        overlong = active & ~self.answering & ~ended & (request_length > MAX_REQUEST)
        dropped = closed & (request_length < MIN_REQUEST) | overlong
        opened = closed & ~dropped
        out_of_positions = length >= self.max_positions - 1
        finished = active & ~dropped & (self.answering & ended | out_of_positions)

        following = self.ids[self._rows, self.positions + 1]
        self.ids[self._rows, self.positions + 1] = torch.where(active, token, following)
        self.answer_start.copy_(torch.where(opened, length + bridge_length, self.answer_start))
        left = self.bridge_left - (forced & active).long()
        self.bridge_left.copy_(torch.where(opened, bridge_length, torch.where(dropped, 0, left)))
        self.answering.logical_or_(opened)
        self.finished.logical_or_(finished)
        moving = ~self.finished
        fed = torch.where(moving, token, self.current)
        self.current.copy_(torch.where(dropped, self.template.prefix[-1], fed))
        self.positions.copy_(torch.where(dropped, self.prefix_length - 1, self.positions + moving.long()))

    def lengths(self) -> Tensor:
        """Return the ids in each slot, the last sampled one included."""
        # The position of a finished slot is one behind its last token.
        return self.positions + 1 + self.finished.long()
