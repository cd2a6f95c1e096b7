"""How clear the target's choice of a token was: where two answers part, only a close one can be rounding."""

from __future__ import annotations

import torch

from .pair import LoadedPair
from .sampling import KeyedNoise, SamplingParams, filtered_logits
from .settings import Settings


@torch.inference_mode()
def token_margin(pair: LoadedPair, context: list[int], settings: Settings) -> float:
    """Between the two best scores for the token after `context`: logits, or log probability plus noise."""
    scores = pair.target.prefill(pair.target.new_cache(), context)
    if settings.temperature > 0:
        noise = KeyedNoise(settings.seed, pair.target.device)
        at = len(context)
        gumbel = noise.gumbel(range(at, at + 1), scores.shape[-1])
        scores = filtered_logits(scores, SamplingParams.from_settings(settings)) + gumbel
    best = scores.float().topk(2).values[0]
    return (best[0] - best[1]).item()
