"""Traces made of replayed rounds."""

from dataclasses import replace

import specdec_core as sd
from specdec_ui.parts.trace_files import Trace, trace_of
from tests.support.replay import STORY, replay_info, rounds_of


def made_up(text: str = STORY, gamma: int = 4, prompt: str = "Tell me a story.") -> Trace:
    """A trace of an answer `text`; its target is a folder of the machine."""
    rounds = rounds_of(text, gamma)
    stats = sd.summarize(rounds, time_to_first_token_s=0.05, prompt_tokens=9, seed=7)
    rounds[-1] = replace(rounds[-1], finish_reason="eos", stats=stats)
    info = replay_info(target="/home/somebody/models/target", drafter="owner/small")
    return trace_of(prompt, sd.Settings(gamma=gamma), info, rounds)
