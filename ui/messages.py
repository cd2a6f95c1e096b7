"""What a person typed, looked at before anything is done with it. Knows nothing of models."""

from __future__ import annotations

import re

import specdec_core as sd

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def checked_message(text: object) -> str:
    """The message with its line ends as \\n. Raises PromptError, saying what to change."""
    if not isinstance(text, str):
        raise sd.PromptError(f"A message must be text, not {type(text).__name__}.")
    if not text.strip():
        raise sd.PromptError("The message is empty. Write something for the model to answer.")
    for pattern, what in ((_SURROGATE, "half of a character"), (_CONTROL, "a control character")):
        if found := pattern.search(text):
            raise sd.PromptError(
                f"The message holds {what} (U+{ord(found.group()):04X}, character {found.start() + 1} of "
                f"{len(text)}), which is not text. Remove it and send again."
            )
    return text.replace("\r\n", "\n").replace("\r", "\n")
