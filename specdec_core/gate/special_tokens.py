"""Check of the tokens that begin, end and pad a text: the same in both tokenizers, with the same ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from transformers import PreTrainedTokenizerBase

from ..hub.tokenizer_rules import quoted
from .report import SHARE_A_TOKENIZER, Check, Status

_ROLES = ("bos", "eos", "pad")


def check_special_tokens(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> Check:
    """Compare tokens and ids by role. Another id fails; another choice is a warning."""
    target_tokens, drafter_tokens = _special_tokens(target), _special_tokens(drafter)
    differing = [role for role in _ROLES if target_tokens[role] != drafter_tokens[role]]
    moved = [role for role in differing if target_tokens[role].text == drafter_tokens[role].text]
    status: Status = "pass"
    explanation = "The same tokens in the same roles."
    if moved:
        status = "fail"
        explanation = (
            f"The {' and '.join(moved)} token has another id in each, so what is a control token to one "
            f"model is a word to the other. {SHARE_A_TOKENIZER}"
        )
    elif differing:
        status = "warning"
        explanation = (
            f"They choose another {' and '.join(differing)}; the target's tokenizer is used for both."
        )
    return Check("special tokens", status, _by_role(target_tokens), _by_role(drafter_tokens), explanation)


@dataclass(frozen=True, slots=True)
class _SpecialToken:
    """A token and its id; None for a role without a token."""

    text: str | None = None
    id: int | None = None

    def __str__(self) -> str:
        return "none" if self.text is None else f"{quoted(self.text)} ({self.id})"


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, _SpecialToken]:
    tokens = {}
    for role in _ROLES:
        token = getattr(tokenizer, f"{role}_token", None)
        text = None if token is None else str(token)
        # One token has one id.
        token_id = None if text is None else cast(int, tokenizer.convert_tokens_to_ids(text))
        tokens[role] = _SpecialToken(text, token_id)
    return tokens


def _by_role(tokens: dict[str, _SpecialToken]) -> str:
    return ", ".join(f"{role} {token}" for role, token in tokens.items())
