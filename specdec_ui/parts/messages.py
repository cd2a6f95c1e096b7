"""What a person typed, looked at before anything is done with it. Knows nothing of models."""

from __future__ import annotations

import re

import specdec_core as sd

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def checked_message(text: object) -> str:
    """The message with its line ends as \\n. Raises PromptError, saying what to change."""
    if isinstance(text, str) and not text.strip():
        raise sd.PromptError("The message is empty. Write something for the model to answer.")
    return _checked_text(text, "message")


def checked_system_message(text: object) -> str:
    """The system message, checked as a message is; empty where it is blank. Raises PromptError."""
    checked = _checked_text(text, "system message")
    return checked if checked.strip() else ""


def _checked_text(text: object, what: str) -> str:
    if not isinstance(text, str):
        raise sd.PromptError(f"A {what} must be text, not {type(text).__name__}.")
    for pattern, held in ((_SURROGATE, "half of a character"), (_CONTROL, "a control character")):
        if found := pattern.search(text):
            raise sd.PromptError(
                f"The {what} holds {held} (U+{ord(found.group()):04X}, character {found.start() + 1} of "
                f"{len(text)}), which is not text. Remove it and send again."
            )
    return text.replace("\r\n", "\n").replace("\r", "\n")
