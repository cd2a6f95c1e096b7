"""A model that thinks before it answers: a chain of tokens, with Qwen 3's tags and switch in its template."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken

from tests.support.chain_model import save_chain
from tests.support.families import FAMILIES

THOUGHT = "hm so"
ANSWER = "Yes."


def save_thinking_model(folder: Path) -> str:
    """Write a model that answers every message with THOUGHT in tags and ANSWER. Returns its folder.

    Where the prompt has an empty thought, as with the switch off, it gives ANSWER alone.
    """
    tokenizer = FAMILIES["qwen3"].tokenizer()
    tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    (opening,), (closing,), (gap,) = ids("<think>"), ids("</think>"), ids("\n\n")
    (end,), before = ids("<|im_end|>"), ids("<|im_start|>assistant\n")[-1]
    path = [before, opening, *ids(THOUGHT), closing, gap, *ids(ANSWER), end]
    assert len(set(path)) == len(path), "a chain needs tokens that differ"
    successors = dict(pairwise(path))
    return save_chain(folder, tokenizer, successors, default=end, config_eos=end)
