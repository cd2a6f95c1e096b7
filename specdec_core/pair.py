"""A target and its drafter with their one tokenizer, loaded and ready to be shared by sessions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from transformers import PreTrainedTokenizerBase

from .drafting import SOURCES
from .drafting.length import StepCosts
from .errors import AnswerError, PromptError, SettingsError
from .onnx_runtime.thread_count import measured_threads
from .onnx_runtime.threads import most_threads
from .out_of_memory import out_of_memory, release_memory, with_second_try
from .runners import Runner
from .runners.float16 import float16_overflow
from .runners.short_head import puts_out_only
from .sampling import DeviceSampling
from .sampling.filters import SamplingParams, adjusted, filtered_logits
from .sampling.history import Tally
from .sampling.noise import KeyedNoise
from .settings import Settings
from .text.detokenization import AnswerText
from .text.prompting import Prompt, Prompter
from .trace import DraftSource
from .units import counted


@dataclass(frozen=True)
class LoadedPair:
    """Two runners with one tokenizer; `drafter` is None for a target alone. `eos_ids` all end an answer."""

    target: Runner
    drafter: Runner | None
    tokenizer: PreTrainedTokenizerBase
    eos_ids: frozenset[int]
    costs: dict[DraftSource, StepCosts] = field(default_factory=dict)
    """Step costs by drafter, measured when the pair is loaded and refined by every answer."""
    target_name: str = ""
    drafter_name: str = ""
    """The models' names for error messages: Hub ids or folders."""
    gguf: str | None = None
    """The target as a file for llama.cpp, if its folder has one."""

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

    def settle(self) -> None:
        """Measure the number of threads again, if forwards have been slow for long. For times when no answer
        is in progress: see Runner.use_threads.
        """
        if any(runner.unsettled for runner in self.runners):
            threads = measured_threads(most_threads())
            for runner in self.runners:
                runner.use_threads(threads)

    def feasible(self, settings: Settings) -> Settings:
        """Return settings that the pair can answer with. With "auto", gamma becomes 0 for a target that takes
        no draft back and for a drafter that puts out banned tokens only, beside which "both" becomes "ngram".
        Raises SettingsError for drafts that no model is there to make or that cannot be taken back, and as
        require_fitting does.
        """
        self.require_fitting(settings)
        if settings.gamma == 0:
            return settings
        if not self.target.rewinds:
            if settings.gamma == "auto":
                return replace(settings, gamma=0)
            raise SettingsError(
                f"gamma must be 0, not {settings.gamma}, with this target: {self.target.reason}"
            )
        if "model" in SOURCES[settings.drafting] and puts_out_only(
            self.require_drafter().model, settings.banned_tokens
        ):
            if settings.gamma == "auto":
                others = settings.drafting == "both"
                return replace(settings, drafting="ngram") if others else replace(settings, gamma=0)
            raise SettingsError(
                "banned_tokens has every token that the drafter puts out. Leave one, or set gamma to 0."
            )
        return settings

    def answer_text(self, prompt: Prompt, ids: Sequence[int], settings: Settings) -> AnswerText:
        """Return the text of an answer to a prompt with these ids. A raw prompt's has no thought apart."""
        traits = None if isinstance(prompt, str) else self.prompter.template.thinking
        return AnswerText(
            self.tokenizer,
            ids,
            self.eos_ids,
            settings.stop,
            tags=None if traits is None else traits.tags,
            thought_opened=traits is not None and settings.thinking in traits.opened,
            alternatives=settings.alternatives > 0,
        )

    def require_fitting(self, settings: Settings) -> None:
        """Raise SettingsError for ids beyond the vocabulary, if every token is banned, and for a choice about
        thinking that the chat template does not offer.
        """
        traits = self.prompter.template.thinking
        if settings.thinking != "auto" and (traits is None or traits.switch is None):
            raise SettingsError(
                f'thinking must be "auto" with this pair, not "{settings.thinking}": its chat template has '
                "no switch for it."
            )
        vocab = self.target.vocab_size
        for name, ids in (("banned_tokens", settings.banned_tokens), ("logit_bias", settings.logit_bias)):
            if ids and max(ids) >= vocab:
                raise SettingsError(f"{name} has token {max(ids)}; this pair's ids end at {vocab - 1}.")
        if len(set(settings.banned_tokens)) >= vocab:
            raise SettingsError("banned_tokens has every token of this pair. Leave one.")

    def require_drafter(self) -> Runner:
        """Return the drafter's runner. Raises SettingsError if there is none."""
        if self.drafter is None:
            raise SettingsError(
                "No drafter is loaded: set gamma to 0 for plain decoding, or load a pair with a drafter."
            )
        return self.drafter

    def not_finite(self, model: str) -> str:
        """Return the error message for logits of "target" or "drafter" that are not finite."""
        name = self.target_name if model == "target" else self.drafter_name
        runner = self.target if model == "target" else self.require_drafter()
        cause = float16_overflow(runner.model) or (
            "Its weights are damaged, or too large for their precision: download or convert them again, or "
            "choose another model."
        )
        return (
            f"The {model}{f', {name},' if name else ''} computes logits that are not finite (NaN or "
            f"infinity), so no token can be drawn. {cause}"
        )

    def memory_ran_out(self, emitted: int | None = None) -> str:
        """Return the error message for memory that ran out, after `emitted` tokens of an answer."""
        when = "" if emitted is None else f" after {counted(emitted, 'token')} of the answer"
        return (
            f"Memory ran out on {self.target.device}{when}, though the caches of idle conversations were "
            "freed. Ask for a shorter answer, begin a new conversation, or load a smaller pair."
        )

    @property
    def runners(self) -> list[Runner]:
        """The target's runner, and the drafter's if there is one."""
        return [self.target] if self.drafter is None else [self.target, self.drafter]

    @property
    def context_length(self) -> int:
        """Positions that an answer may use: the target's. Past those of a drafter it has no more drafts."""
        return self.target.context_length

    @property
    def shared_context_length(self) -> int:
        """Positions that both models were made for."""
        return min(runner.context_length for runner in self.runners)

    @property
    def drafter_context_length(self) -> int | None:
        """Positions that the drafter was made for, where the target was made for more; else None."""
        shared = self.shared_context_length
        return shared if shared < self.context_length else None


def token_margin(
    pair: LoadedPair,
    context: list[int],
    prompt_length: int,
    settings: Settings,
    make_room: Callable[[], None] = release_memory,
) -> float:
    """Return the difference between the two best scores for the token after `context`, whose first
    `prompt_length` tokens are the prompt: logits at temperature 0, else log probability plus Gumbel noise;
    infinite where only one token is possible. Raises PromptError for an empty context, AnswerError for
    logits that are not finite, or if memory runs out.
    """
    try:
        best, second = with_second_try(
            lambda: _two_best_scores(pair, context, prompt_length, settings), make_room
        )
    except Exception as error:
        if not out_of_memory(error):
            raise
        release_memory(error)
        raise AnswerError(pair.memory_ran_out()) from None
    if not math.isfinite(best):
        raise AnswerError(pair.not_finite("target"))
    return best - second


@torch.inference_mode()
def _two_best_scores(
    pair: LoadedPair, context: list[int], prompt_length: int, settings: Settings
) -> list[float]:
    logits = pair.target.prefill(pair.target.new_cache(), context)
    if logits is None:
        raise PromptError("There is no token before the one to be scored. Give a context.")
    params = SamplingParams.from_settings(settings)
    tally = Tally(logits.shape[-1], logits.device)
    tally.update(context[:prompt_length])
    tally.update(context)
    if params.greedy:
        scores = adjusted(logits, params, tally.history)
    else:
        noise = KeyedNoise(settings.seed, pair.target.device)
        at = len(context)
        gumbel = noise.gumbel(range(at, at + 1), logits.shape[-1])
        scores = filtered_logits(logits, params, tally.history) + gumbel
    return scores.topk(2).values[0].tolist()
