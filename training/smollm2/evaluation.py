"""Expected acceptance of a drafter on stored conversations.

Every answer position is evaluated on the target's own text, whatever its place in a round would be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .conversations import ConversationStore, Selection
from .drafter import Drafter
from .matmul import float32_product
from .target import Target

TEMPERATURES = (0.0, 0.8, 1.0)
ROUND_TEMPERATURE = 0.8
MAX_GAMMA = 6
CONVERSATIONS_AT_ONCE = 32
ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Acceptance:
    """Mean acceptance over answer tokens, by temperature."""

    tokens: int
    by_temperature: dict[float, float]

    def tokens_per_round(self, gamma: int) -> float:
        """Return the tokens emitted in a round at ROUND_TEMPERATURE, were every draft as likely accepted.

        The sum of acceptance ** i for i from 0 to gamma (Leviathan et al. 2023, equation 1).
        """
        return sum(self.by_temperature[ROUND_TEMPERATURE] ** i for i in range(gamma + 1))


def expected_acceptance(
    target_logits: Tensor, drafter_logits: Tensor, head_ids: Tensor, temperature: float
) -> Tensor:
    """Return the probability `[rows]` that a draft is accepted.

    Sum of min(p, q) over the ids, p over the whole vocabulary (Leviathan et al. 2023, Corollary 3.6); at
    temperature 0 whether both choose the same id. target_logits `[rows, vocab]`, drafter_logits
    `[rows, ids]`, head_ids `[ids]`.
    """
    if temperature == 0:
        return (head_ids[drafter_logits.argmax(-1)] == target_logits.argmax(-1)).float()
    p = (target_logits / temperature).softmax(-1)[:, head_ids]
    q = (drafter_logits / temperature).softmax(-1)
    return torch.minimum(p, q).sum(-1)


@torch.no_grad()
def evaluate(target: Target, drafter: Drafter, store: ConversationStore, selection: Selection) -> Acceptance:
    """Return the mean acceptance of `drafter` over the answers of the selected conversations."""
    sums = torch.zeros(len(TEMPERATURES), device=target.device)
    head = drafter.head.to(target.dtype)
    selection = selection[selection.lengths.argsort()]
    for start in range(0, len(selection), CONVERSATIONS_AT_ONCE):
        batch = store.batch(selection[slice(start, start + CONVERSATIONS_AT_ONCE)])
        states = drafter.states(target, batch.ids, batch.positions)
        target_states = store.states[batch.state_rows]
        for row in range(0, len(states), ROWS_AT_ONCE):
            part = slice(row, row + ROWS_AT_ONCE)
            target_logits = float32_product(target_states[part], target.embedding.T)
            drafter_logits = float32_product(states[part], head.T)
            for index, temperature in enumerate(TEMPERATURES):
                accepted = expected_acceptance(target_logits, drafter_logits, drafter.head_ids, temperature)
                sums[index] += accepted.sum()
    tokens = selection.answer_tokens
    means = (sums / max(1, tokens)).tolist()
    return Acceptance(tokens, dict(zip(TEMPERATURES, means, strict=True)))
