"""Prompts → token ids: raw text, or messages through the chat template.

Text typed by a person never becomes a control token, and earlier answers keep the ids that were sampled for
them. Knows nothing of models or caches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from ..plain_text import find_surrogate
from ..settings import Thinking
from .chat_template import render
from .kept_text import folded, missing_word, squeezed, text_in_place
from .marks import Marks, unused_character
from .rendered_text import RenderedTextEncoder
from .template_probe import TemplateTraits, probe_template

Message = Mapping[str, str]
"""A message of a conversation: role (system, user or assistant) and content."""
Prompt = str | Sequence[Message]
"""Raw text, or a conversation for the chat template."""
_ROLES = ("system", "user", "assistant")


class Prompter:
    """Encoder of prompts for one tokenizer, the target's."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._rendered_text = RenderedTextEncoder(tokenizer)

    @cached_property
    def template(self) -> TemplateTraits:
        """The traits of the chat template."""
        return probe_template(self.tokenizer)

    def encode(
        self,
        prompt: Prompt,
        sampled: Mapping[str, Sequence[int]] | None = None,
        thinking: Thinking = "auto",
    ) -> list[int]:
        """Return the ids of a raw prompt or of a conversation. Raises PromptError."""
        if isinstance(prompt, str):
            return self.encode_raw(prompt)
        return self.encode_chat(prompt, sampled, thinking)

    def encode_within(
        self, prompt: Prompt, context_length: int, thinking: Thinking = "auto"
    ) -> tuple[list[int], int]:
        """Return the ids of a prompt, and the number of tokens that may follow in a context of that length.
        Raises PromptError, also if there is no room for one.
        """
        ids = self.encode(prompt, thinking=thinking)
        room = context_length - len(ids)
        if room < 1:
            raise PromptError(
                f"The prompt has {len(ids)} tokens; the context holds {context_length}, the answer included."
            )
        return ids, room

    def encode_raw(self, prompt: str) -> list[int]:
        """Return the ids of a raw prompt: those of its text, after what the tokenizer puts in front.

        An end that the tokenizer appends is left out, since the text is to be continued, and so is a
        beginning that the prompt spells itself. Raises PromptError if it is empty.
        """
        _require_text(prompt, "The prompt")
        text_ids = self.tokenizer.encode(prompt, add_special_tokens=False) if prompt else []
        if not text_ids:
            raise PromptError("The prompt is empty. Write something for the model to continue.")
        lead = _lead(self.tokenizer.encode(prompt), text_ids)
        return text_ids if text_ids[: len(lead)] == lead else lead + text_ids

    def encode_chat(
        self,
        messages: Sequence[Message],
        sampled: Mapping[str, Sequence[int]] | None = None,
        thinking: Thinking = "auto",
    ) -> list[int]:
        """Return the ids of a conversation, up to the beginning of the model's next answer.

        `thinking` other than "auto" sets the template's switch, if it has one.

        `sampled` maps the text of earlier answers to the ids that were sampled for them. An assistant message
        with such a text gets these ids, unless the template rewrites it or the text before it. Raises
        PromptError if the messages are not a conversation, or if the template refuses them or leaves out a
        word of the last one or of the system message.
        """
        check_messages(messages)
        marks = Marks()
        traits = self.template.thinking
        variables = {} if traits is None else traits.variables(thinking)
        text, answers = self._mark_answers(messages, sampled or {}, marks, variables)
        ids: list[int] = []
        for mark, answer in answers.items():
            before, _, text = text.partition(mark)
            ids += self._rendered_text.encode(before.rstrip() + answer.lead, marks) + list(answer.ids)
        return ids + self._rendered_text.encode(text, marks)

    def _mark_answers(
        self,
        messages: Sequence[Message],
        sampled: Mapping[str, Sequence[int]],
        marks: Marks,
        variables: Mapping[str, bool],
    ) -> tuple[str, dict[str, _Answer]]:
        """Render the messages with a mark in place of each answer that its sampled ids can replace."""
        current = [
            {**m, "content": self._rendered_text.mask(m["content"], marks, of_model=m["role"] == "assistant")}
            for m in messages
        ]
        rendered = self._render(current, variables)
        self._require_kept(current, rendered, marks, variables)
        answers: dict[str, _Answer] = {}
        for at, message in enumerate(messages):
            if message["role"] != "assistant" or message["content"] not in sampled or at == 0:
                continue
            mark, text = next(marks), current[at]["content"]
            marked = [*current[:at], {**current[at], "content": mark}, *current[at + 1 :]]
            try:
                whole, question = self._render(marked, variables), self._render(current[:at], variables)
            except PromptError:  # a template that takes the conversation, but not its beginning
                continue
            same_text = mark in whole and squeezed(whole.replace(mark, text)) == squeezed(rendered)
            if same_text and whole.partition(mark)[0].rstrip() == question.rstrip():
                current, rendered = marked, whole
                answers[mark] = _Answer(sampled[message["content"]], question[len(question.rstrip()) :])
        return rendered, answers

    def _render(self, messages: list[dict[str, str]], variables: Mapping[str, bool]) -> str:
        return render(
            self.tokenizer,
            messages,
            roles_in_parts=self.template.roles_in_parts,
            add_generation_prompt=True,
            variables=variables,
        )

    def _require_kept(
        self, messages: list[dict[str, str]], rendered: str, marks: Marks, variables: Mapping[str, bool]
    ) -> None:
        """Raise PromptError if the template leaves out a word of the last message or of a system message."""
        text = folded(rendered)
        for at, message in enumerate(messages):
            of_system = message["role"] == "system"
            if not of_system and at < len(messages) - 1:
                continue
            keeps_all = self.template.takes_system_message if of_system else not self.template.dropped
            if keeps_all and folded(message["content"]) in text:
                continue
            # It may be rewritten, or be found by chance in other text.
            place = self._place(messages, at, rendered, variables)
            missing = None if place is None else missing_word(message["content"], place)
            if place is not None and missing is None:
                continue
            what, remedy = (
                ("the system message", "Remove it")
                if of_system
                else ("your message", "Give a raw prompt (--prompt)")
            )
            if missing is not None:
                what = f'a part of {what}, near "{marks.restore(missing):.40}"'
            raise PromptError(
                f"The model's chat template leaves out {what}. {remedy}, or choose another model."
            )

    def _place(
        self, messages: list[dict[str, str]], at: int, rendered: str, variables: Mapping[str, bool]
    ) -> str | None:
        """The text rendered for a message; all text if it cannot be told apart, None if there is none."""
        mark = unused_character(rendered)  # one character, which a template that shortens messages keeps
        try:
            others = [*messages[:at], {**messages[at], "content": mark}, *messages[at + 1 :]]
            marked = self._render(others, variables)
        except PromptError:  # a template that takes the message, but not a shorter one
            return rendered
        return text_in_place(rendered, marked, mark)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Sampled ids of an earlier answer, and the white space in front of them in the prompt of then."""

    ids: Sequence[int]
    lead: str


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


def _lead(ids: list[int], text_ids: list[int]) -> list[int]:
    """The ids that the tokenizer put in front of those of a text."""
    starts = range(len(ids) - len(text_ids) + 1)
    return next((ids[:at] for at in starts if ids[at : at + len(text_ids)] == text_ids), [])
