"""Rendering of messages by a model's chat template. Whatever it raises is a PromptError with its words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from ..errors import PromptError
from ..plain_text import find_surrogate

_LONGEST_WORDS = 300
_LONGEST_FRAME = 1_000_000
"""Characters of a prompt that are not those of messages."""
_MOST_REPEATS = 1000
_REMEDY = "Give a raw prompt (--prompt) instead, or repair the template."


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    roles_in_parts: Collection[str] = (),
    add_generation_prompt: bool = False,
    variables: Mapping[str, bool] | None = None,
) -> str:
    """Return the messages as the tokenizer's chat template writes them.

    Contents of the `roles_in_parts` are given as a list of one part, `{"type": "text", "text": ...}`.
    `variables` are those of the template that switch something. Raises PromptError if there is no template,
    if it raises anything, or if its text is endless or no Unicode text.
    """
    _require_template(tokenizer.chat_template)
    given = [
        _in_parts(message) if message["role"] in roles_in_parts else dict(message) for message in messages
    ]
    try:
        text = tokenizer.apply_chat_template(
            cast("list[dict[str, str]]", given),
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            **cast(Any, variables or {}),
        )
    except Exception as error:  # a template may fail in any way
        raise PromptError(_explain(error)) from error
    rendered = cast(str, text)  # its annotation does not depend on `tokenize`
    _require_prompt(rendered, sum(len(message["content"]) for message in messages))
    return rendered


def _in_parts(message: Mapping[str, str]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _require_template(template: str | dict[str, str] | None) -> None:
    """Raise PromptError unless there is one template, or one that is named default."""
    if not template:
        raise PromptError("This model has no chat template. Give it a raw prompt (--prompt) instead.")
    if isinstance(template, dict) and "default" not in template:
        raise PromptError(
            f"This model has several chat templates ({', '.join(sorted(template))}), none named default. "
            "Rename the one for chats in the tokenizer's files, or give a raw prompt (--prompt) instead."
        )


def _require_prompt(text: str, message_length: int) -> None:
    """Raise PromptError for text that cannot be encoded, or that is far longer than the messages."""
    if len(text) > _LONGEST_FRAME + _MOST_REPEATS * message_length:
        raise PromptError(
            f"The model's chat template writes {len(text):,} characters for messages of {message_length:,}. "
            f"{_REMEDY}"
        )
    if (at := find_surrogate(text)) is not None:
        raise PromptError(
            "The model's chat template writes half of a character (the lone surrogate "
            f"U+{ord(text[at]):04X}), which cannot be encoded. {_REMEDY}"
        )


def _explain(error: Exception) -> str:
    words = " ".join(str(error).split())[:_LONGEST_WORDS]
    if type(error) is TemplateError:  # raised by the template itself, with raise_exception
        return f"The model's chat template refuses these messages: {words or 'it does not say why'}"
    kind = type(error).__name__
    reason = f"{kind}: {words}" if words else kind
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return f"The model's chat template fails on these messages: {reason}{stop} {_REMEDY}"
