"""Logits → the distribution that a token is drawn from: temperature, top-k, top-p, min-p.

Knows nothing of models, rounds or randomness.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import Settings

_NUCLEUS_FIRST = 256


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The part of the settings that shapes a distribution."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    @classmethod
    def from_settings(cls, settings: Settings) -> SamplingParams:
        return cls(float(settings.temperature), settings.top_k, float(settings.top_p), float(settings.min_p))

    @property
    def greedy(self) -> bool:
        # Below this float32 cannot tell the best logit from infinitely better than the rest.
        return self.temperature < 1e-6


def filtered_logits(logits: Tensor, params: SamplingParams) -> Tensor:
    """Temperature → top-k → top-p → min-p on logits [rows, vocab], in float32; filtered entries are -inf.

    `params.temperature` must be above 0. The most probable token always survives. top-p keeps the
    smallest set whose mass reaches p (Holtzman et al. 2020); min-p keeps what has at least min_p times
    the probability of the best (Nguyen et al. 2024), both measured on what the filters before them left.
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
    """The smallest set of tokens whose mass reaches top_p [rows, vocab]; of equals, the first ones.

    Sorting a whole vocabulary takes longer than a small model's forward, and a nucleus is seldom large: the
    best few hundred are ordered first, and all only where their mass does not reach it.
    """
    vocab, total = logits.shape[-1], logits.logsumexp(-1, keepdim=True)
    for size in (min(_NUCLEUS_FIRST, vocab), vocab):
        best = logits.topk(size, dim=-1).values
        probs = (best - total).exp()
        mass = probs.cumsum(-1)
        if size == vocab or bool((mass[..., -1] >= top_p).all()):
            break
    # Each is kept whose better ones have not reached it yet; the best has none.
    kept = (mass - probs < top_p).sum(-1, keepdim=True).clamp(min=1)
    threshold = best.gather(-1, kept - 1)
    better, equal = logits > threshold, logits == threshold
    return better | (equal & (equal.cumsum(-1) <= kept - better.sum(-1, keepdim=True)))


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """The distribution [rows, vocab], float32, that a token is drawn from; one-hot at temperature 0."""
    if params.greedy:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return filtered_logits(logits, params).softmax(-1)
