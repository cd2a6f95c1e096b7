"""Conversion of logits to the distribution that a token is drawn from: temperature, top-k, top-p, min-p.

Knows nothing of models, rounds or randomness.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import Settings

_NUCLEUS_FIRST = 256
"""Tokens that are sorted first; a nucleus is rarely larger."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings that shape a distribution."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    @classmethod
    def from_settings(cls, settings: Settings) -> SamplingParams:
        """Return the parameters of an answer with these settings."""
        return cls(float(settings.temperature), settings.top_k, float(settings.top_p), float(settings.min_p))

    @property
    def unfiltered(self) -> bool:
        """True if every token keeps a probability."""
        return not self.greedy and self.top_k == 0 and self.top_p >= 1 and self.min_p == 0

    @property
    def greedy(self) -> bool:
        """True if the distribution is one-hot at the argmax."""
        # At a lower temperature, float32 softmax gives the best logit a probability of 1 anyway.
        return self.temperature < 1e-6


def filtered_logits(logits: Tensor, params: SamplingParams) -> Tensor:
    """Apply temperature, top-k, top-p and min-p, in this order, to logits [rows, vocab].

    Returns float32 [rows, vocab] with filtered entries at -inf. `params.temperature` must be above 0. The
    most probable token is always kept. top-p keeps the smallest set whose mass reaches p (Holtzman et al.
    2020); min-p keeps tokens with at least min_p times the highest probability (Nguyen et al. 2024). Both
    measure the distribution that the filters before them leave.
    """
    logits = logits.float() * (1 / params.temperature)
    if 0 < params.top_k < logits.shape[-1]:
        threshold = logits.topk(params.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if params.top_p < 1:
        logits = logits.masked_fill(~_nucleus(logits, params.top_p), -torch.inf)
    if params.min_p > 0:
        probs = logits.softmax(-1)
        logits = logits.masked_fill(probs < params.min_p * probs.amax(-1, keepdim=True), -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Boolean mask [rows, vocab]: the smallest set whose mass reaches top_p, the lower ids among equals.

    Sorting a whole vocabulary takes longer than a small model's forward, and a nucleus is rarely large. So
    the best few hundred are sorted first, and the whole vocabulary only if their mass does not reach top_p.
    """
    # Not logsumexp: beside logits of ten thousand, as a low temperature makes them, it loses its digits.
    vocab, total = logits.shape[-1], (logits - logits.amax(-1, keepdim=True)).exp_().sum(-1, keepdim=True)
    for size in (min(_NUCLEUS_FIRST, vocab), vocab):
        best = logits.topk(size, dim=-1).values
        probs = (best - best[..., :1]).exp_() / total
        mass = probs.cumsum(-1)
        if size == vocab or bool((mass[..., -1] >= top_p).all()):
            break
    # A token is kept if the mass of the better ones is below top_p; the best is always kept.
    kept_count = (mass - probs < top_p).sum(-1, keepdim=True).clamp(min=1)
    threshold = best.gather(-1, kept_count - 1)
    better, equal = logits > threshold, logits == threshold
    return better | (equal & (equal.cumsum(-1) <= kept_count - better.sum(-1, keepdim=True)))


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """Return the distribution to draw from: float32 like logits [rows, vocab], one-hot if greedy."""
    if params.greedy:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return filtered_logits(logits, params).softmax(-1)
