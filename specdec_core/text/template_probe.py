"""Probe of a chat template: what it takes, what it leaves out, and how it ends an answer.

Renders conversations of strings that occur nowhere else, and looks for them in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from .chat_template import render
from .control_tokens import control_tokens

_SYSTEM = {"role": "system", "content": "qzsystemvk"}
_CONVERSATION = [
    {"role": "user", "content": "qzfirstvk"},
    {"role": "assistant", "content": "qzanswervk"},
    {"role": "user", "content": "qzmiddlevk"},
    {"role": "assistant", "content": "qzreplyvk"},
    {"role": "user", "content": "qzlastvk"},
]
_QUESTION = _CONVERSATION[-1:]
_NAMES = {
    "qzfirstvk": "the first message",
    "qzanswervk": "earlier answers",
    "qzmiddlevk": "earlier messages",
    "qzreplyvk": "earlier answers",
    "qzlastvk": "the message to answer",
}
_FORMS = [frozenset[str](), frozenset({"user", "assistant"}), frozenset({"user"}), frozenset({"assistant"})]
"""Sets of roles whose content may be given in parts, the preferred one first."""


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """Properties of a chat template.

    `roles_in_parts`: roles whose content it takes as a list of parts, not as text. `dropped`: names of what
    it leaves out of a conversation. `error`: the reason why an ordinary conversation cannot be rendered.
    `turn_end`: the id of the added token, special or not, that it writes right after an answer.
    """

    roles_in_parts: frozenset[str] = frozenset()
    takes_system_message: bool = False
    dropped: tuple[str, ...] = ()
    error: str | None = None
    can_chat: bool = True
    turn_end: int | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for people on what does not work; empty for an ordinary template."""
        notes: list[str] = []
        if self.error is not None:
            notes.append(f"Some conversations fail. {self.error}" if self.can_chat else self.error)
        if self.dropped:
            limit = "" if self.can_chat else " It cannot hold a conversation; a raw prompt (--prompt) works."
            notes.append(f"The model's chat template leaves out {', '.join(self.dropped)}.{limit}")
        return tuple(notes)


def probe_template(tokenizer: PreTrainedTokenizerBase) -> TemplateTraits:
    """Return the traits of the tokenizer's chat template."""
    error: str | None = None
    for messages in (_CONVERSATION, [_SYSTEM, *_CONVERSATION], _QUESTION, [_SYSTEM, *_QUESTION]):
        try:
            roles, kept = _best_form(tokenizer, messages)
        except PromptError as refusal:
            error = error or str(refusal)
        else:
            return _traits(tokenizer, messages, roles, kept, error)
    return TemplateTraits(error=error, can_chat=False)


def _traits(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[dict[str, str]],
    roles: frozenset[str],
    kept: frozenset[str],
    error: str | None,
) -> TemplateTraits:
    """Traits of a template that renders `messages` with these roles in parts, and keeps some contents."""
    opening = [message for message in messages if message is _SYSTEM]
    names = [
        _NAMES[message["content"]] for message in messages[len(opening) :] if message["content"] not in kept
    ]
    try:
        alone = _kept(tokenizer, [*opening, *_QUESTION], roles)
    except PromptError as refusal:
        error, alone = error or str(refusal), kept
    can_chat = _QUESTION[0]["content"] in kept & alone
    if not can_chat and not names:
        names = [_NAMES[_QUESTION[0]["content"]]]
    system = _system_form(tokenizer, [*messages[len(opening) :]], roles)
    return TemplateTraits(
        roles_in_parts=roles if system is None else system,
        takes_system_message=system is not None,
        dropped=tuple(dict.fromkeys(names)),
        error=error,
        can_chat=can_chat,
        turn_end=_turn_end(tokenizer, opening, roles),
    )


def _best_form(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]]
) -> tuple[frozenset[str], frozenset[str]]:
    """The roles to give in parts so that most contents are kept, above all the last one; and these contents.

    Raises the first PromptError if the template takes no form.
    """
    forms: list[tuple[frozenset[str], frozenset[str]]] = []
    refusals: list[PromptError] = []
    with_system = [roles | {"system"} for roles in _FORMS] if messages[0] is _SYSTEM else []
    for roles in [*_FORMS, *with_system]:
        try:
            forms.append((roles, _kept(tokenizer, messages, roles)))
        except PromptError as refusal:
            refusals.append(refusal)
    if not forms:
        raise refusals[0]
    return max(forms, key=lambda form: (messages[-1]["content"] in form[1], len(form[1])))


def _kept(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], roles: frozenset[str]
) -> frozenset[str]:
    """The contents in the rendered text, white space and case folded; a printed list of parts has none."""
    text = render(tokenizer, messages, roles_in_parts=roles, add_generation_prompt=True)
    text = "".join(text.casefold().split())
    printed = set(re.findall(r"""['"]text['"]:['"](\w+)""", text))
    return frozenset(
        message["content"]
        for message in messages
        if message["content"] in text and not (message["role"] in roles and message["content"] in printed)
    )


def _system_form(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[dict[str, str]], roles: frozenset[str]
) -> frozenset[str] | None:
    """The roles in parts with which the template keeps a system message; None if it does with no form."""
    for form in (roles, roles ^ {"system"}):
        try:
            if {_SYSTEM["content"], messages[-1]["content"]} <= _kept(tokenizer, [_SYSTEM, *messages], form):
                return form
        except PromptError:  # a template that refuses system messages, or this form of them
            continue
    return None


def _turn_end(
    tokenizer: PreTrainedTokenizerBase, opening: list[dict[str, str]], roles: frozenset[str]
) -> int | None:
    """The added token that the template writes right after an assistant's message."""
    question, answer = _CONVERSATION[:2]
    try:
        text = render(tokenizer, [*opening, question, answer], roles_in_parts=roles)
    except PromptError:  # it wants other messages: an answer ends as configured
        return None
    _, answered, after = text.rpartition(answer["content"])
    controls = control_tokens(tokenizer)
    closing = [token for token in controls if answered and after.lstrip().startswith(token)]
    return controls[max(closing, key=len)] if closing else None
