"""Rendering of messages by a model's chat template. Whatever it raises is a PromptError with its words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from ..errors import PromptError

_LONGEST_WORDS = 300


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, str]],
    *,
    roles_in_parts: Collection[str] = (),
    add_generation_prompt: bool = False,
) -> str:
    """Return the messages as the tokenizer's chat template writes them.

    Contents of the `roles_in_parts` are given as a list of one part, `{"type": "text", "text": ...}`. Raises
    PromptError if there is no template, or if it raises anything.
    """
    _require_template(tokenizer.chat_template)
    given = [
        _in_parts(message) if message["role"] in roles_in_parts else dict(message) for message in messages
    ]
    try:
        text = tokenizer.apply_chat_template(
            cast("list[dict[str, str]]", given), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except Exception as error:  # a template may fail in any way
        raise PromptError(_explain(error)) from error
    return cast(str, text)  # its annotation does not depend on `tokenize`


def _in_parts(message: Mapping[str, str]) -> dict[str, Any]:
    return {**message, "content": [{"type": "text", "text": message["content"]}]}


def _require_template(template: str | dict[str, str] | None) -> None:
    """Raise PromptError unless there is one template, or one that is named default."""
    if template is None:
        raise PromptError("This model has no chat template. Give it a raw prompt (--prompt) instead.")
    if isinstance(template, dict) and "default" not in template:
        raise PromptError(
            f"This model has several chat templates ({', '.join(sorted(template))}), none named default. "
            "Rename the one for chats in the tokenizer's files, or give a raw prompt (--prompt) instead."
        )


def _explain(error: Exception) -> str:
    words = " ".join(str(error).split())[:_LONGEST_WORDS]
    if type(error) is TemplateError:  # raised by the template itself, with raise_exception
        return f"The model's chat template refuses these messages: {words or 'it does not say why'}"
    kind = type(error).__name__
    return (
        f"The model's chat template fails on these messages: {f'{kind}: {words}' if words else kind}. Give a "
        "raw prompt (--prompt) instead, or repair the template."
    )
