"""A model that thinks before it answers: a chain of tokens, with Qwen 3's tags and switch in its template."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tokenizers import AddedToken

from tests.support.chain_model import save_chain
from tests.support.families import FAMILIES

THOUGHT = "hm so"
ANSWER = "Yes."


def save_thinking_model(folder: Path, opening: str = "<think>", special: bool = False) -> str:
    """Write a model that answers every message with THOUGHT in tags and ANSWER. Returns its folder.

    Where the prompt has an empty thought, as with the switch off, it gives ANSWER alone. `special` makes the
    tags special tokens.
    """
    tokenizer = FAMILIES["qwen3"].tokenizer()
    tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    ending = f"{opening[0]}/{opening[1:]}"
    tokenizer.add_tokens([AddedToken(tag, special=special, normalized=False) for tag in (opening, ending)])
    template = str(tokenizer.chat_template)
    tokenizer.chat_template = template.replace("</think>", ending).replace("<think>", opening)

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    (first,), (last,), (gap,) = ids(opening), ids(ending), ids("\n\n")
    (end,), before = ids("<|im_end|>"), ids("<|im_start|>assistant\n")[-1]
    path = [before, first, *ids(THOUGHT), last, gap, *ids(ANSWER), end]
    assert len(set(path)) == len(path), "a chain needs tokens that differ"
    successors = dict(pairwise(path))
    return save_chain(folder, tokenizer, successors, default=end, config_eos=end)
