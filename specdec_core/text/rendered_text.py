"""Rendered templates → token ids: control tokens are the template's, those that a person typed are text."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from .control_tokens import any_of, control_tokens, special_tokens
from .marks import Marks


class RenderedTextEncoder:
    """Encoder of rendered templates for one tokenizer. Marks stand for the control tokens that were typed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
        self._control_ids = control_tokens(tokenizer)
        self._control = any_of(self._control_ids)
        self._special = any_of(self._control_ids.keys() & special_tokens(tokenizer).keys())

    def mask(self, text: str, marks: Marks, *, of_model: bool) -> str:
        """Replace every control token that a message spells out by a mark. In an answer of the model, those
        that are not flagged special (Qwen3's <think>) stay: it wrote them, and templates look for them.
        """
        pattern = self._special if of_model else self._control
        return pattern.sub(lambda match: marks.standing_for(match.group()), text)

    def encode(self, text: str, marks: Marks) -> list[int]:
        """Return the ids of rendered text; the literals of marks are text.

        Raises PromptError if a tokenizer written in Python cannot encode a literal as text.
        """
        if not text:
            return []
        if not marks.literals and not self._normalizes_controls:
            return self._tokenizer.encode(text, add_special_tokens=False)
        if self._twin is None:
            return self._encode_between_controls(text, marks)
        return self._twin.encode(text, marks)

    @cached_property
    def _twin(self) -> _Twin | None:
        return None if self._backend is None else _Twin(self._backend, self._control_ids)

    @cached_property
    def _normalizes_controls(self) -> bool:
        """True if normalization can turn other spellings than the literal one into a control token."""
        if self._backend is None or self._backend.normalizer is None:
            return False
        added = self._tokenizer.added_tokens_decoder.values()
        return any(token.normalized and token.content in self._control_ids for token in added)

    def _encode_between_controls(self, text: str, marks: Marks) -> list[int]:
        """Encode the text between control tokens piece by piece, as tokenizers written in Python do."""
        ids: list[int] = []
        at = 0
        for match in self._control.finditer(text):
            ids += self._encode_as_text(marks.restore(text[at : match.start()]))
            ids.append(self._control_ids[match.group()])
            at = match.end()
        return ids + self._encode_as_text(marks.restore(text[at:]))

    def _encode_as_text(self, text: str) -> list[int]:
        """Encode text, none of it as a control token. Raises PromptError if the tokenizer cannot."""
        if not text:
            return []
        try:
            ids = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        except (TypeError, ValueError):  # a class without this option
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        if not set(self._control_ids.values()).isdisjoint(ids):
            raise PromptError(
                "A message spells out a control token, and this model's tokenizer cannot tell it from a real "
                "one. Remove it and send again."
            )
        return ids


class _Twin:
    """A copy of a tokenizer with random names for its control tokens. It encodes a whole text at once.

    Token boundaries and normalization are those of the original; spelled control tokens are ordinary text.
    """

    def __init__(self, original: Tokenizer, control_ids: Mapping[str, int]) -> None:
        self._names = {literal: f"\ue000{secrets.token_hex(8)}\ue001" for literal in control_ids}
        self._control = any_of(control_ids)
        self._tokenizer = _renamed_twin(json.loads(original.to_str()), self._names)
        self._original_ids = {
            self._tokenizer.token_to_id(name): control_ids[literal] for literal, name in self._names.items()
        }

    def encode(self, text: str, marks: Marks) -> list[int]:
        """Return the original's ids of a text; its control tokens are real, those of the marks are not."""
        renamed = self._control.sub(lambda match: self._names[match.group()], text)
        ids = self._tokenizer.encode(marks.restore(renamed), add_special_tokens=False).ids
        return [self._original_ids.get(token_id, token_id) for token_id in ids]


def _renamed_twin(backend: dict[str, Any], names: Mapping[str, str]) -> Tokenizer:
    """A tokenizer from the parsed JSON form of another, its added tokens renamed in the vocabulary too."""
    twin = {**backend, "post_processor": None, "truncation": None, "padding": None}
    renamed = {literal: {"content": name, "normalized": False} for literal, name in names.items()}
    twin["added_tokens"] = [
        {**token, **renamed.get(token["content"], {})} for token in backend["added_tokens"]
    ]
    model = dict(backend["model"])
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): token_id for piece, token_id in vocab.items()}
    elif isinstance(vocab, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if "merges" in model:
        # Merges may spell control tokens too, and pieces of those names are gone.
        model["merges"] = [m for m in model["merges"] if not names.keys() & _spelled(m)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return Tokenizer.from_str(json.dumps({**twin, "model": model}))


def _spelled(merge: str | Sequence[str]) -> set[str]:
    """The two parts of a merge and their concatenation."""
    parts = merge.split(" ", 1) if isinstance(merge, str) else list(merge)
    return {*parts, "".join(parts)}
