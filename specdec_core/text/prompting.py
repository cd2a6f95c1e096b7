"""Messages → ids: chat templates, with typed text kept apart from control tokens.

Text typed by a person can never become a control token, and answers given before come back as the ids
that were sampled. Knows nothing of models or caches.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from ..plain_text import find_surrogate

Message = Mapping[str, str]
Prompt = str | Sequence[Message]
"""Raw text, or a conversation for the chat template."""
_ROLES = ("system", "user", "assistant")
_BLANK = re.compile(r"[\s▁]+")


class Prompter:
    """Encodes for one tokenizer, the target's."""

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
        """A raw prompt, encoded as the tokenizer encodes text. Raises PromptError when there is nothing."""
        _require_text(prompt, "The prompt")
        ids = self.tokenizer.encode(prompt) if prompt else []
        if not ids:
            raise PromptError("The prompt is empty. Write something for the model to continue.")
        return ids

    def encode_chat(
        self, messages: Sequence[Message], sampled: Mapping[str, Sequence[int]] | None = None
    ) -> list[int]:
        """The ids of a conversation, up to where the model's answer begins.

        `sampled` maps the text of earlier answers to the ids that were sampled for them; an assistant
        message with such a text is made of these ids, unless the template rewrites it or what stands before
        it. Raises PromptError for messages that are not a conversation, and where the template refuses them.
        """
        check_messages(messages)
        marks = _Marks()
        text, answers = self._with_answers_marked(messages, sampled or {}, marks)
        ids: list[int] = []
        for mark, answer in answers.items():
            before, _, text = text.partition(mark)
            ids += self._encode_rendered(before.rstrip() + answer.lead, marks) + list(answer.ids)
        return ids + self._encode_rendered(text, marks)

    def _with_answers_marked(
        self, messages: Sequence[Message], sampled: Mapping[str, Sequence[int]], marks: _Marks
    ) -> tuple[str, dict[str, _Answer]]:
        """The rendering, with a mark for each answer that its sampled ids can stand in for."""
        current = [{**m, "content": self._mask(m, marks)} for m in messages]
        rendered = self._render(current)
        answers: dict[str, _Answer] = {}
        for at, message in enumerate(messages):
            if message["role"] != "assistant" or message["content"] not in sampled:
                continue
            mark, text = next(marks), current[at]["content"]
            marked = [*current[:at], {**current[at], "content": mark}, *current[at + 1 :]]
            whole, asked = self._render(marked), self._render(current[:at])
            same_text = _squeezed(whole.replace(mark, text)) == _squeezed(rendered)
            if same_text and whole.partition(mark)[0].rstrip() == asked.rstrip():
                current, rendered = marked, whole
                answers[mark] = _Answer(sampled[message["content"]], asked[len(asked.rstrip()) :])
        return rendered, answers

    # --- typed control tokens -------------------------------------------------------------------

    def _mask(self, message: Message, marks: _Marks) -> str:
        """Puts a mark in the place of every control token that a message spells out. In an answer, what is
        not flagged special (Qwen3's <think>) is the model's own, and templates look for it.
        """
        pattern = self._special if message["role"] == "assistant" else self._control
        return pattern.sub(lambda match: marks.standing_for(match.group()), message["content"])

    def _encode_rendered(self, text: str, marks: _Marks) -> list[int]:
        """Control tokens in `text` are the template's own; what its marks stand for is text."""
        if not text:
            return []
        if not marks.literals and not self._normalizes_controls:
            return self.tokenizer.encode(text, add_special_tokens=False)
        # One encoding of the whole by a twin whose control tokens have other names: the cuts, and whatever
        # a normalizer does at them, are the template's own, and the literal spellings mean nothing.
        twin, names = self._twin
        renamed = self._control.sub(lambda match: names[match.group()], text)
        original = {twin.token_to_id(name): self._control_ids[literal] for literal, name in names.items()}
        encoded = twin.encode(marks.restore(renamed), add_special_tokens=False).ids
        return [original.get(token_id, token_id) for token_id in encoded]

    @cached_property
    def _twin(self) -> tuple[Tokenizer, dict[str, str]]:
        """The tokenizer with its control tokens under names that nobody can guess, and these names."""
        names = {literal: f"\ue000{secrets.token_hex(8)}\ue001" for literal in self._control_ids}
        return _renamed_twin(json.loads(self.tokenizer.backend_tokenizer.to_str()), names), names

    @cached_property
    def _normalizes_controls(self) -> bool:
        """Whether other spellings than the literal one can become a control token."""
        if getattr(self.tokenizer, "backend_tokenizer", None) is None:
            return False
        added = self.tokenizer.added_tokens_decoder.values()
        has_normalizer = self.tokenizer.backend_tokenizer.normalizer is not None
        return has_normalizer and any(t.normalized and t.content in self._control_ids for t in added)

    # --- templates ------------------------------------------------------------------------------

    def _render(self, messages: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:
            raise PromptError("This model has no chat template. Give it a raw prompt (--prompt) instead.")
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise PromptError(f"The model's chat template refuses these messages: {error}") from error


@dataclass(frozen=True, slots=True)
class _Answer:
    """Sampled ids, and the white space that stood before them when they were sampled."""

    ids: Sequence[int]
    lead: str


class _Marks:
    """Strings that no message holds, of private-use characters around a number that nobody can guess."""

    def __init__(self) -> None:
        nonce = secrets.token_hex(8)
        self._names = (f"\ue000{nonce}.{n}\ue001" for n in count())
        self.literals: dict[str, str] = {}

    def __next__(self) -> str:
        return next(self._names)

    def standing_for(self, literal: str) -> str:
        known = next((mark for mark, text in self.literals.items() if text == literal), None)
        if known is None:
            known = next(self)
            self.literals[known] = literal
        return known

    def restore(self, text: str) -> str:
        for mark, literal in self.literals.items():
            text = text.replace(mark, literal)
        return text


def _squeezed(text: str) -> str:
    """Without white space, which templates may trim."""
    return "".join(text.split())


def check_messages(messages: Sequence[Message]) -> None:
    """Raises PromptError unless these are role/content dicts of text that end with something to answer."""
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
    """Added tokens by their spelling, special or not; but runs of white space, which Gemma adds too, are
    ordinary text.
    """
    return {
        literal: token_id
        for literal, token_id in tokenizer.get_added_vocab().items()
        if not _BLANK.fullmatch(literal)
    }


def _any_of(literals: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of the literals; nothing where there are none."""
    ordered = sorted(literals, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered)) if ordered else r"(?!)")


def _renamed_twin(backend: dict, names: Mapping[str, str]) -> Tokenizer:
    """The same tokenizer with its added tokens under other names, in the model's vocabulary too."""
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
        # A vocabulary may spell control tokens by merges too; these pieces have no such name any more.
        model["merges"] = [m for m in model["merges"] if not names.keys() & _spelled(m)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return Tokenizer.from_str(json.dumps({**twin, "model": model}))


def _spelled(merge: str | Sequence[str]) -> set[str]:
    """Both parts of a merge and what it makes."""
    parts = merge.split(" ", 1) if isinstance(merge, str) else list(merge)
    return {*parts, "".join(parts)}
