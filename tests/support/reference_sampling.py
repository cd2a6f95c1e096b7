"""The distribution that a token must be drawn from, computed token by token in plain Python from formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence

from specdec_core.settings import Settings


def reference_distribution(
    logits: Sequence[float], settings: Settings, prompt: Sequence[int], answer: Sequence[int]
) -> list[float]:
    """Return p of each token that follows `prompt` and `answer`; one-hot at temperature 0."""
    scores = list(map(float, logits))
    vocab = range(len(scores))
    for token in vocab:
        scores[token] += settings.logit_bias.get(token, 0.0)
        if token in settings.banned_tokens:
            scores[token] = -math.inf
        if token in [*prompt, *answer]:
            scores[token] *= (
                settings.repetition_penalty if scores[token] < 0 else 1 / settings.repetition_penalty
            )
        count = list(answer).count(token)
        scores[token] -= settings.frequency_penalty * count + settings.presence_penalty * (count > 0)
    if settings.temperature == 0:
        best = scores.index(max(scores))
        return [float(token == best) for token in vocab]
    probs = _softmax([score / settings.temperature for score in scores])
    if settings.top_k:
        least = sorted(probs, reverse=True)[: settings.top_k][-1]
        probs = _kept(probs, {token for token in vocab if probs[token] >= least})
    if settings.top_p < 1:
        probs = _kept(probs, _first(probs, lambda token: -probs[token], settings.top_p))
    if settings.min_p > 0:
        probs = _kept(probs, {token for token in vocab if probs[token] >= settings.min_p * max(probs)})
    if settings.typical_p < 1:
        entropy = -sum(p * math.log(p) for p in probs if p > 0)
        probs = _kept(
            probs,
            _first(
                probs,
                lambda token: abs(-math.log(probs[token]) - entropy) if probs[token] else math.inf,
                settings.typical_p,
            ),
        )
    return probs


def _softmax(scores: list[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def _kept(probs: list[float], kept: set[int]) -> list[float]:
    total = sum(probs[token] for token in kept)
    return [p / total if token in kept else 0.0 for token, p in enumerate(probs)]


def _first(probs: list[float], rank, mass: float) -> set[int]:
    """The first tokens by rank, until their mass is reached."""
    kept: set[int] = set()
    for token in sorted(range(len(probs)), key=rank):
        kept.add(token)
        if sum(probs[each] for each in kept) >= mass:
            break
    return kept
