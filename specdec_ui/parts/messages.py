"""Checks of typed messages. Knows nothing of models."""

from __future__ import annotations

import re

import specdec_core as sd

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def checked_message(text: object) -> str:
    """Return the message with its line ends as \\n. Raises PromptError, saying what to change."""
    if isinstance(text, str) and not text.strip():
        raise sd.PromptError("The message is empty. Write something for the model to answer.")
    return _checked_text(text, "message")


def checked_system_message(text: object) -> str:
    """Return the system message as `checked_message` does; empty if it is blank. Raises PromptError."""
    checked = _checked_text(text, "system message")
    return checked if checked.strip() else ""


def _checked_text(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise sd.PromptError(f"A {name} must be text, not {type(text).__name__}.")
    control = _CONTROL.search(text)
    positions = {
        "half of a character": sd.find_surrogate(text),
        "a control character": control.start() if control else None,
    }
    for defect, position in positions.items():
        if position is not None:
            raise sd.PromptError(
                f"The {name} holds {defect} (U+{ord(text[position]):04X}, character {position + 1} of "
                f"{len(text)}), which is not text. Remove it and send again."
            )
    return text.replace("\r\n", "\n").replace("\r", "\n")
