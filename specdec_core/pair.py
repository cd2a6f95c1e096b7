"""A target and its drafter with their one tokenizer, loaded and ready to be shared by sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from .drafting.length import StepCosts
from .errors import PromptError, SettingsError
from .runners import Runner
from .sampling import DeviceSampling
from .sampling.filters import SamplingParams, filtered_logits
from .sampling.noise import KeyedNoise
from .settings import Drafting, Settings
from .text.prompting import Prompter


@dataclass(frozen=True)
class LoadedPair:
    """Two runners with one tokenizer; `drafter` is None for a target alone. `eos_ids` all end an answer."""

    target: Runner
    drafter: Runner | None
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    costs: dict[Drafting, StepCosts] = field(default_factory=dict)
    """Step costs by way of drafting, measured when the pair is loaded and refined by every answer."""

    @cached_property
    def prompter(self) -> Prompter:
        """The encoder of prompts, for the one tokenizer."""
        return Prompter(self.tokenizer)

    @cached_property
    def sampling(self) -> DeviceSampling | None:
        """Buffers for sampling on the device that has the logits; None on a CPU."""
        on_host = self.target.device.type == "cpu"
        return None if on_host else DeviceSampling(self.target.device, self.target.vocab_size)

    @property
    def runner_reason(self) -> str | None:
        """The target's reason for a slower runner, else the drafter's if its runner is of the same kind."""
        if self.target.reason is None and self.drafter is not None and self.drafter.name == self.target.name:
            return self.drafter.reason
        return self.target.reason

    def require_drafter(self) -> Runner:
        """Return the drafter's runner. Raises SettingsError if there is none."""
        if self.drafter is None:
            raise SettingsError(
                "No drafter is loaded: set gamma to 0 for plain decoding, or load a pair with a drafter."
            )
        return self.drafter

    @property
    def runners(self) -> list[Runner]:
        """The target's runner, and the drafter's if there is one."""
        return [self.target] if self.drafter is None else [self.target, self.drafter]

    @property
    def context_length(self) -> int:
        """Positions that both models were made for."""
        return min(runner.context_length for runner in self.runners)


@torch.inference_mode()
def token_margin(pair: LoadedPair, context: list[int], settings: Settings) -> float:
    """Return the difference between the two best scores for the token after `context`: logits at temperature
    0, else log probability plus Gumbel noise. Raises PromptError for an empty context.
    """
    scores = pair.target.prefill(pair.target.new_cache(), context)
    if scores is None:
        raise PromptError("There is no token before the one to be scored. Give a context.")
    if settings.temperature > 0:
        noise = KeyedNoise(settings.seed, pair.target.device)
        at = len(context)
        gumbel = noise.gumbel(range(at, at + 1), scores.shape[-1])
        scores = filtered_logits(scores, SamplingParams.from_settings(settings)) + gumbel
    best = scores.float().topk(2).values[0]
    return (best[0] - best[1]).item()
