"""What we are measured against: transformers' own generate, alone and with the drafter as its assistant."""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from ..pair import LoadedPair
from ..peers import peer_ids
from ..settings import Settings
from ..text.prompting import Prompt
from .lanes import Answer, Sample


def peer_answer(pair: LoadedPair, settings: Settings, gamma: int | None) -> Answer:
    """A lane of transformers' generate, timed around the whole call."""
    settings = settings if gamma is None else replace(settings, gamma=gamma)
    return timed_answer(pair, lambda prompt_ids: peer_ids(pair, prompt_ids, settings, gamma is not None))


def timed_answer(pair: LoadedPair, ids_for) -> Answer:
    """A lane of somebody else's code: `ids_for(prompt_ids)` answers with the new ids."""

    def answer(prompt: Prompt, seed: int) -> Sample:
        prompter = pair.prompter
        prompt_ids = prompter.encode(prompt)
        torch.manual_seed(seed)
        started = time.perf_counter()
        ids = ids_for(prompt_ids)
        if pair.target.device.type == "cuda":
            torch.cuda.synchronize(pair.target.device)
        return Sample(len(ids), time.perf_counter() - started)

    return answer
