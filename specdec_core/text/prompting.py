"""Prompts → token ids: raw text, or messages through the chat template.

Text typed by a person never becomes a control token, and earlier answers keep the ids that were sampled for
them. Knows nothing of models or caches.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from ..plain_text import find_surrogate
from .chat_template import render

Message = Mapping[str, str]
"""A message of a conversation: role (system, user or assistant) and content."""
Prompt = str | Sequence[Message]
"""Raw text, or a conversation for the chat template."""
_ROLES = ("system", "user", "assistant")
_BLANK = re.compile(r"[\s▁]+")


class Prompter:
    """Encoder of prompts for one tokenizer, the target's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._control_ids = _control_tokens(tokenizer)
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._control = _any_of(self._control_ids)
        self._special = _any_of(literal for literal in self._control_ids if literal in special)

    def encode(self, prompt: Prompt, sampled: Mapping[str, Sequence[int]] | None = None) -> list[int]:
        """Return the ids of a raw prompt or of a conversation. Raises PromptError."""
        return self.encode_raw(prompt) if isinstance(prompt, str) else self.encode_chat(prompt, sampled)

    def encode_raw(self, prompt: str) -> list[int]:
        """Return the ids of a raw prompt as the tokenizer encodes text. Raises PromptError if it is empty."""
        _require_text(prompt, "The prompt")
        ids = self.tokenizer.encode(prompt) if prompt else []
        if not ids:
            raise PromptError("The prompt is empty. Write something for the model to continue.")
        return ids

    def encode_chat(
        self, messages: Sequence[Message], sampled: Mapping[str, Sequence[int]] | None = None
    ) -> list[int]:
        """Return the ids of a conversation, up to the beginning of the model's next answer.

        `sampled` maps the text of earlier answers to the ids that were sampled for them. An assistant message
        with such a text gets these ids, unless the template rewrites it or the text before it. Raises
        PromptError if the messages are not a conversation or the template refuses them.
        """
        check_messages(messages)
        marks = _Marks()
        text, answers = self._mark_answers(messages, sampled or {}, marks)
        ids: list[int] = []
        for mark, answer in answers.items():
            before, _, text = text.partition(mark)
            ids += self._encode_rendered(before.rstrip() + answer.lead, marks) + list(answer.ids)
        return ids + self._encode_rendered(text, marks)

    def _mark_answers(
        self, messages: Sequence[Message], sampled: Mapping[str, Sequence[int]], marks: _Marks
    ) -> tuple[str, dict[str, _Answer]]:
        """Render the messages with a mark in place of each answer that its sampled ids can replace."""
        current = [{**m, "content": self._mask(m, marks)} for m in messages]
        rendered = self._render(current)
        answers: dict[str, _Answer] = {}
        for at, message in enumerate(messages):
            if message["role"] != "assistant" or message["content"] not in sampled:
                continue
            mark, text = next(marks), current[at]["content"]
            marked = [*current[:at], {**current[at], "content": mark}, *current[at + 1 :]]
            whole, question = self._render(marked), self._render(current[:at])
            same_text = _squeezed(whole.replace(mark, text)) == _squeezed(rendered)
            if same_text and whole.partition(mark)[0].rstrip() == question.rstrip():
                current, rendered = marked, whole
                answers[mark] = _Answer(sampled[message["content"]], question[len(question.rstrip()) :])
        return rendered, answers

    # --- typed control tokens -------------------------------------------------------------------

    def _mask(self, message: Message, marks: _Marks) -> str:
        """Replace every control token that a message spells out by a mark. In an answer, tokens that are not
        flagged special (Qwen3's <think>) stay: the model wrote them, and templates look for them.
        """
        pattern = self._special if message["role"] == "assistant" else self._control
        return pattern.sub(lambda match: marks.standing_for(match.group()), message["content"])

    def _encode_rendered(self, text: str, marks: _Marks) -> list[int]:
        """Encode rendered text. Control tokens in it are the template's; the literals of marks are text."""
        if not text:
            return []
        if not marks.literals and not self._normalizes_controls:
            return self.tokenizer.encode(text, add_special_tokens=False)
        # A twin tokenizer, whose control tokens have other names, encodes the whole at once. Token boundaries
        # and normalization are those of the original, while the literal spellings are ordinary text.
        twin, names = self._twin
        renamed = self._control.sub(lambda match: names[match.group()], text)
        original = {twin.token_to_id(name): self._control_ids[literal] for literal, name in names.items()}
        encoded = twin.encode(marks.restore(renamed), add_special_tokens=False).ids
        return [original.get(token_id, token_id) for token_id in encoded]

    @cached_property
    def _backend(self) -> Tokenizer | None:
        """The tokenizer's serializable form; None for one written in Python."""
        return getattr(self.tokenizer, "backend_tokenizer", None)

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[str, str]]:
        """A copy of the tokenizer with random names for its control tokens, and these names by literal."""
        if self._backend is None:
            raise PromptError(
                "A message spells out a control token, and this model's tokenizer cannot tell it from a real "
                "one. Remove it and send again."
            )
        names = {literal: f"\ue000{secrets.token_hex(8)}\ue001" for literal in self._control_ids}
        return _renamed_twin(json.loads(self._backend.to_str()), names), names

    @cached_property
    def _normalizes_controls(self) -> bool:
        """True if normalization can turn other spellings than the literal one into a control token."""
        if self._backend is None or self._backend.normalizer is None:
            return False
        added = self.tokenizer.added_tokens_decoder.values()
        return any(token.normalized and token.content in self._control_ids for token in added)

    # --- templates ------------------------------------------------------------------------------

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:
            raise PromptError("This model has no chat template. Give it a raw prompt (--prompt) instead.")
        try:
            return render(self.tokenizer, messages, add_generation_prompt=True)
        except TemplateError as error:
            raise PromptError(f"The model's chat template refuses these messages: {error}") from error


@dataclass(frozen=True, slots=True)
class _Answer:
    """Sampled ids of an earlier answer, and the white space in front of them in the prompt of then."""

    ids: Sequence[int]
    lead: str


class _Marks:
    """Placeholders that occur in no message: a random number between private-use characters."""

    def __init__(self) -> None:
        nonce = secrets.token_hex(8)
        self._names = (f"\ue000{nonce}.{n}\ue001" for n in count())
        self.literals: dict[str, str] = {}

    def __next__(self) -> str:
        return next(self._names)

    def standing_for(self, literal: str) -> str:
        """Return the mark of a literal, the same one each time."""
        known = next((mark for mark, text in self.literals.items() if text == literal), None)
        if known is None:
            known = next(self)
            self.literals[known] = literal
        return known

    def restore(self, text: str) -> str:
        """Replace the marks in a text by their literals."""
        for mark, literal in self.literals.items():
            text = text.replace(mark, literal)
        return text


def _squeezed(text: str) -> str:
    """The text without white space, which templates may trim."""
    return "".join(text.split())


def check_messages(messages: Sequence[Message]) -> None:
    """Raise PromptError unless `messages` are role/content dicts of text that end with a user's message."""
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise PromptError(f"The prompt must be text or a list of messages, not {type(messages).__name__}.")
    if not messages:
        raise PromptError("There is no message to answer.")
    for message in messages:
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise PromptError(f"A message is a dict with role and content, not {message!r:.200}.")
        if message["role"] not in _ROLES:
            raise PromptError(f"A message's role is one of {', '.join(_ROLES)}, not {message['role']!r}.")
        _require_text(message["content"], f"The {message['role']} message")
    last = messages[-1]
    if last["role"] != "user":
        raise PromptError(f"The last message must be the user's, not the {last['role']}'s.")
    if not last["content"].strip():
        raise PromptError("The message is empty. Write something for the model to answer.")


def _require_text(text: object, what: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{what} must be text, not {type(text).__name__}.")
    if (at := find_surrogate(text)) is not None:
        raise PromptError(
            f"{what} holds half of a character (the lone surrogate U+{ord(text[at]):04X} at "
            f"position {at}), which cannot be encoded. Remove it and send again."
        )


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Ids of the added tokens by literal, special or not. Runs of white space, which Gemma adds, are text."""
    added = tokenizer.get_added_vocab()  # pyright: ignore[reportCallIssue, reportOptionalCall] # in subclasses
    return {literal: token_id for literal, token_id in added.items() if not _BLANK.fullmatch(literal)}


def _any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Pattern for the longest match among the literals; it matches nothing if there are none."""
    ordered = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


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
