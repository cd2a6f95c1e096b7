"""A target and its drafter with their one tokenizer, loaded and ready to be shared by sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from .drafting.length import StepCosts
from .runners import Runner
from .sampling import DeviceSampling
from .sampling.filters import SamplingParams, filtered_logits
from .sampling.noise import KeyedNoise
from .settings import Drafting, Settings
from .text.prompting import Prompter


@dataclass(frozen=True)
class LoadedPair:
    """`drafter` is None for a target alone. `eos_ids` are all that end an answer."""

    target: Runner
    drafter: Runner | None
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    costs: dict[Drafting, StepCosts] = field(default_factory=dict)
    """What steps cost by way of drafting, measured when the pair was loaded and refined by every answer."""

    @cached_property
    def prompter(self) -> Prompter:
        return Prompter(self.tokenizer)

    @cached_property
    def sampling(self) -> DeviceSampling | None:
        """What answers sample with where the logits are on a device; None where the host has them."""
        on_host = self.target.device.type == "cpu"
        return None if on_host else DeviceSampling(self.target.device, self.target.vocab_size)

    @property
    def runner_reason(self) -> str | None:
        """Why the target's runner is not the faster one, or no longer; or the drafter's of the same kind."""
        if self.target.reason is None and self.drafter is not None and self.drafter.name == self.target.name:
            return self.drafter.reason
        return self.target.reason

    @property
    def context_length(self) -> int:
        """Positions that both models were made for."""
        lengths = [runner.context_length for runner in (self.target, self.drafter) if runner is not None]
        return min(lengths)


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
