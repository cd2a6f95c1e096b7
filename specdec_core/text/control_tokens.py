"""Control tokens of a tokenizer: the tokens that were added to its vocabulary, special or not."""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

_BLANK = re.compile(r"[\s▁]+")


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids by literal. Runs of white space, which Gemma adds, are text."""
    added = tokenizer.get_added_vocab()  # pyright: ignore[reportCallIssue, reportOptionalCall] # in subclasses
    return {literal: token_id for literal, token_id in added.items() if not _BLANK.fullmatch(literal)}


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Return the ids by literal of the tokens that decoded text leaves out.

    They are flagged special, or named in a role (as eos_token) by a tokenizer written in Python.
    """
    flagged = {token.content: at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    return dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)) | flagged


def any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the longest match among the literals; it matches nothing if there are none."""
    ordered = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")
