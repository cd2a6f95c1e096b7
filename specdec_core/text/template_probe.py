"""Probe of a chat template: what it takes, what it leaves out, and how it ends an answer.

Renders conversations of words that occur nowhere else, and looks for them in the text.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from ..settings import THINKING, Thinking
from .chat_template import render
from .control_tokens import control_tokens
from .probe_messages import KeptMessages, find_messages, long_messages, short_messages, system_message
from .thoughts import KNOWN_TAGS, ThoughtTags

_FORMS = [frozenset[str](), frozenset({"user", "assistant"}), frozenset({"user"}), frozenset({"assistant"})]
"""Sets of roles whose content may be given in parts, the preferred one first."""
_SHORT_CONVERSATION = 5
_SWITCHES = ("enable_thinking", "thinking")
"""Variables of templates that switch thinking on and off."""


@dataclass(frozen=True, slots=True)
class ThinkingTraits:
    """Properties of the chat template of a model that thinks before it answers.

    `switch` is the template's variable, `tags` what a thought is written in; each is None if there is none.
    `opened` are the settings with which the prompt itself ends with the opening tag.
    """

    switch: str | None
    tags: ThoughtTags | None
    opened: frozenset[Thinking]

    def variables(self, thinking: Thinking) -> dict[str, bool]:
        """Return the template's variables for a setting."""
        return {} if thinking == "auto" or self.switch is None else {self.switch: thinking == "on"}


@dataclass(frozen=True, slots=True)
class TemplateTraits:
    """Properties of a chat template.

    `roles_in_parts`: roles whose content it takes as a list of parts, not as text. `dropped`: names of what
    it leaves out of a conversation. `error`: the reason why an ordinary conversation cannot be rendered.
    `turn_end`: the id of the added token, special or not, that it writes right after an answer. `thinking`:
    None for a model that does not think.
    """

    roles_in_parts: frozenset[str] = frozenset()
    takes_system_message: bool = False
    dropped: tuple[str, ...] = ()
    error: str | None = None
    can_chat: bool = True
    turn_end: int | None = None
    thinking: ThinkingTraits | None = None

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
    for messages in (
        long_messages(control_tokens(tokenizer)),
        short_messages(_SHORT_CONVERSATION),
        short_messages(1),
    ):
        for opening in ([], [system_message(long=False)]):
            try:
                roles, kept = _best_form(tokenizer, opening, messages)
            except PromptError as refusal:
                error = error or str(refusal)
            else:
                return _traits(tokenizer, opening, messages, roles, kept, error)
    return TemplateTraits(error=error, can_chat=False)


def _traits(
    tokenizer: PreTrainedTokenizerBase,
    opening: list[dict[str, str]],
    messages: list[dict[str, str]],
    roles: frozenset[str],
    kept: KeptMessages,
    error: str | None,
) -> TemplateTraits:
    """Traits of a template that renders `messages` with these roles in parts, after an opening."""
    dropped = kept.names_of_dropped(messages)
    system = _system_form(tokenizer, messages, roles)
    if system is not None and system.in_part:
        dropped += ("parts of the system message",)
    try:
        answers_one = 0 in _kept(tokenizer, opening, short_messages(1), roles).some
    except PromptError as refusal:
        error, answers_one = error or str(refusal), True
    can_chat = answers_one and len(messages) - 1 in kept.some
    return TemplateTraits(
        roles_in_parts=roles if system is None else system.roles_in_parts,
        takes_system_message=system is not None,
        dropped=dropped if can_chat or dropped else ("the message to answer",),
        error=error,
        can_chat=can_chat,
        turn_end=_turn_end(tokenizer, opening, roles),
        thinking=_thinking(tokenizer, [*opening, *short_messages(1)], roles),
    )


def _best_form(
    tokenizer: PreTrainedTokenizerBase, opening: list[dict[str, str]], messages: list[dict[str, str]]
) -> tuple[frozenset[str], KeptMessages]:
    """The roles to give in parts so that most messages are kept, above all the last one; and those kept.

    Raises the first PromptError if the template takes no form.
    """
    forms: list[tuple[frozenset[str], KeptMessages]] = []
    refusals: list[PromptError] = []
    with_system = [roles | {"system"} for roles in _FORMS] if opening else []
    for roles in [*_FORMS, *with_system]:
        try:
            forms.append((roles, _kept(tokenizer, opening, messages, roles)))
        except PromptError as refusal:
            refusals.append(refusal)
    if not forms:
        raise refusals[0]
    last = len(messages) - 1
    return max(forms, key=lambda form: (last in form[1].some, len(form[1].some), -len(form[1].in_part)))


def _kept(
    tokenizer: PreTrainedTokenizerBase,
    opening: list[dict[str, str]],
    messages: list[dict[str, str]],
    roles: frozenset[str],
) -> KeptMessages:
    """The messages after an opening that the template keeps."""
    text = render(tokenizer, [*opening, *messages], roles_in_parts=roles, add_generation_prompt=True)
    return find_messages(messages, text, roles)


@dataclass(frozen=True, slots=True)
class _SystemForm:
    """The roles in parts with which a template keeps a system message, all of it or a part."""

    roles_in_parts: frozenset[str]
    in_part: bool


def _system_form(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], roles: frozenset[str]
) -> _SystemForm | None:
    """The first form with which the template keeps a system message; None if it does with no form."""
    last = len(messages)
    for form in (roles, roles ^ {"system"}):
        try:
            kept = _kept(tokenizer, [], [system_message(long=True), *messages], form)
        except PromptError:  # a template that refuses system messages, or this form of them
            continue
        if {0, last} <= kept.some:
            return _SystemForm(form, 0 in kept.in_part)
    return None


def _turn_end(
    tokenizer: PreTrainedTokenizerBase, opening: list[dict[str, str]], roles: frozenset[str]
) -> int | None:
    """The added token that the template writes right after an assistant's message."""
    question, answer = short_messages(2)
    try:
        text = render(tokenizer, [*opening, question, answer], roles_in_parts=roles)
    except PromptError:  # it wants other messages: an answer ends as configured
        return None
    _, answered, after = text.rpartition(answer["content"])
    controls = control_tokens(tokenizer)
    closing = [token for token in controls if answered and after.lstrip().startswith(token)]
    return controls[max(closing, key=len)] if closing else None


def _thinking(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], roles: frozenset[str]
) -> ThinkingTraits | None:
    """The traits of a template that names a switch or tags of thoughts."""
    source = str(tokenizer.chat_template)
    tags = next((tags for tags in KNOWN_TAGS if tags.closing in source), None)
    names = [name for name in _SWITCHES if name in source]
    if tags is None and not names:
        return None

    def prompts(switch: str | None) -> dict[Thinking, str]:
        """The prompt by setting; "" for one that cannot be rendered."""
        found: dict[Thinking, str] = {}
        for mode in THINKING:
            variables = ThinkingTraits(switch, tags, frozenset()).variables(mode)
            try:
                found[mode] = render(
                    tokenizer, messages, roles_in_parts=roles, add_generation_prompt=True, variables=variables
                )
            except PromptError:
                found[mode] = ""
        return found

    for switch in names:
        texts = prompts(switch)
        if texts["on"] and texts["off"] and texts["on"] != texts["off"]:
            break
    else:
        switch = None
        if tags is None:
            return None
        texts = prompts(switch)
    opened: set[Thinking] = {
        mode for mode in THINKING if tags and texts[mode].rstrip().endswith(tags.opening)
    }
    return ThinkingTraits(switch, tags, frozenset(opened))
