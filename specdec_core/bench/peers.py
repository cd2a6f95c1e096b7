"""What we are measured against: transformers' own generate, alone and with the drafter as its assistant."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ..pair import LoadedPair
from ..runners.few_rows import stock_layers
from ..session import Prompt
from ..settings import Settings
from .lanes import Answer, Sample


def peer_ids(pair: LoadedPair, prompt_ids: Sequence[int], settings: Settings, gamma: int | None) -> list[int]:
    """What transformers' own generate answers, with the drafter as assistant where gamma is given."""
    extra = {}
    if gamma is not None:
        assistant = pair.drafter.model
        # The same gamma in every round, as in the lane that it is compared with.
        assistant.generation_config.num_assistant_tokens = gamma
        assistant.generation_config.num_assistant_tokens_schedule = "constant"
        assistant.generation_config.assistant_confidence_threshold = 0.0
        extra["assistant_model"] = assistant
    if settings.temperature > 0:
        extra |= {"do_sample": True, "temperature": settings.temperature, "top_k": 0, "top_p": 1.0}
    else:
        extra["do_sample"] = False
    ids = torch.tensor([list(prompt_ids)], device=pair.target.device)
    with stock_models(pair):
        output = pair.target.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=min(pair.eos_ids, default=0),
            **extra,
        )
    return output[0, ids.shape[1] :].tolist()


def peer_answer(pair: LoadedPair, settings: Settings, gamma: int | None) -> Answer:
    """A lane of transformers' generate, timed around the whole call."""
    return timed_answer(pair, lambda prompt_ids: peer_ids(pair, prompt_ids, settings, gamma))


def timed_answer(pair: LoadedPair, ids_for) -> Answer:
    """A lane of somebody else's code: `ids_for(prompt_ids)` answers with the new ids."""

    def answer(prompt: Prompt, seed: int) -> Sample:
        prompter = pair.prompter
        prompt_ids = prompter.encode_raw(prompt) if isinstance(prompt, str) else prompter.encode_chat(prompt)
        torch.manual_seed(seed)
        started = time.perf_counter()
        ids = ids_for(prompt_ids)
        if pair.target.device.type == "cuda":
            torch.cuda.synchronize(pair.target.device)
        return Sample(len(ids), time.perf_counter() - started)

    return answer


@contextmanager
def stock_models(pair: LoadedPair) -> Iterator[None]:
    """Within it the models are as transformers made them: its own layers and its own attention."""
    models = [runner.model for runner in (pair.target, pair.drafter) if runner is not None]
    ours = [(model, model.config._attn_implementation) for model in models]
    with stock_layers(*models):
        try:
            for model, attention in ours:
                if attention not in ("sdpa", "eager"):
                    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
                    model.set_attn_implementation("eager" if capped else "sdpa")
            yield
        finally:
            for model, attention in ours:
                if model.config._attn_implementation != attention:
                    model.set_attn_implementation(attention)
