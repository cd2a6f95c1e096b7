"""Lanes of transformers' own generate, alone and with the drafter as its assistant."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch

from ..pair import LoadedPair
from ..peers import peer_ids
from ..settings import Settings
from ..text.prompting import Prompt
from .lanes import Answer, Sample


def peer_answer(pair: LoadedPair, settings: Settings, gamma: int | None) -> Answer:
    """Return a lane of transformers' generate, timed around the whole call; assisted unless gamma is None."""
    settings = settings if gamma is None else replace(settings, gamma=gamma)
    return timed_answer(pair, lambda prompt_ids: peer_ids(pair, prompt_ids, settings, gamma is not None))


def timed_answer(pair: LoadedPair, generate: Callable[[list[int]], list[int]]) -> Answer:
    """Return a lane of other code: `generate` maps the ids of a prompt to those of its answer."""

    def answer(prompt: Prompt, seed: int) -> Sample:
        prompter = pair.prompter
        prompt_ids = prompter.encode(prompt)
        torch.manual_seed(seed)
        started = time.perf_counter()
        ids = generate(prompt_ids)
        if pair.target.device.type == "cuda":
            torch.cuda.synchronize(pair.target.device)
        return Sample(len(ids), time.perf_counter() - started)

    return answer
