"""Messages that probe a chat template: words that occur nowhere else, and names of what a text leaves out."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .kept_text import folded, missing_word

_MESSAGES = 41
"""Messages of the long conversation: windows of 20 messages, or 40, are seen."""
_LINES = 100
"""Lines of a long message, about 6,000 characters: a cut at 4,096 is seen."""
_SEPARATORS = ("###", "---", "</think>", "<b>")
"""Text that people write, and that templates split messages at."""


def short_messages(count: int) -> list[dict[str, str]]:
    """Return a conversation of one-word messages, which ends with the user's if the count is odd."""
    return [_message(("user", "assistant")[at % 2], f"qz{at}vk") for at in range(count)]


def long_messages(control: Collection[str]) -> list[dict[str, str]]:
    """Return a long conversation; its first and its last two messages are long.

    Those of the user have separators, but none that is a control token: what people type never is one.
    """
    separators = [separator for separator in _SEPARATORS if separator not in control]
    messages = short_messages(_MESSAGES)
    first, answer, last = messages[0], messages[-2], messages[-1]
    messages[0], messages[-1] = _lengthened(first, separators), _lengthened(last, separators)
    messages[-2] = _lengthened(answer, [])
    return messages


def system_message(*, long: bool) -> dict[str, str]:
    """Return a system message."""
    message = _message("system", "qzsystemvk")
    return _lengthened(message, []) if long else message


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _lengthened(message: dict[str, str], separators: Sequence[str]) -> dict[str, str]:
    word = message["content"]
    stem = word.removesuffix("vk")
    lines = [f"{stem}line{n}vk: a quick brown fox jumps over the lazy dog" for n in range(_LINES)]
    for n, separator in enumerate(separators, start=1):
        lines[n * _LINES // (len(separators) + 1)] += f" {separator} and"
    return {**message, "content": "\n\n".join([word, ": the beginning", *lines, f"{stem}endvk"])}


@dataclass(frozen=True, slots=True)
class KeptMessages:
    """Positions of the messages of which a text has something, and of those that it has in part."""

    some: frozenset[int]
    in_part: frozenset[int]

    def names_of_dropped(self, messages: Sequence[dict[str, str]]) -> tuple[str, ...]:
        """Return names for people of what the text leaves out of a conversation without a system message."""
        dropped = [at for at in range(len(messages)) if at not in self.some]
        parts = {messages[at]["role"] for at in self.in_part}
        names = [_window(dropped, len(messages))] if _is_window(dropped, len(messages)) else []
        names = names or [_name(at, messages) for at in dropped]
        names += ["parts of your messages"] if "user" in parts else []
        names += ["parts of earlier answers"] if "assistant" in parts else []
        return tuple(dict.fromkeys(names))


def find_messages(
    messages: Sequence[dict[str, str]], text: str, roles_in_parts: Collection[str]
) -> KeptMessages:
    """Return the messages that a rendered text keeps. A list of parts that it prints does not count."""
    whole = folded(text)
    printed = set(re.findall(r"""['"]text['"]:['"](\w+)""", whole))
    some = frozenset(
        at
        for at, message in enumerate(messages)
        if any(word in whole for word in message["content"].split() if word.startswith("qz"))
        and not (message["role"] in roles_in_parts and message["content"].split()[0] in printed)
    )
    in_part = frozenset(
        at
        for at in some
        if folded(content := messages[at]["content"]) not in whole and missing_word(content, text) is not None
    )
    return KeptMessages(some, in_part)


def _is_window(dropped: Sequence[int], count: int) -> bool:
    """True if what is dropped lies before the last few messages of a conversation, in one run."""
    if len(dropped) < 2 or dropped[-1] >= count - 2:
        return False
    return dropped[-1] - dropped[0] + 1 == len(dropped)


def _window(dropped: Sequence[int], count: int) -> str:
    first, last = dropped[0], count - 1 - dropped[-1]
    opening = f"the first {first} and " if first > 1 else "the first and " if first else ""
    return f"all but {opening}the last {last} messages"


def _name(at: int, messages: Sequence[dict[str, str]]) -> str:
    if at == len(messages) - 1:
        return "the message to answer"
    if messages[at]["role"] == "assistant":
        return "earlier answers"
    return "the first message" if at == 0 else "earlier messages"
