"""Stop strings: found however a text is cut into parts, with special tokens among their characters.

Knows nothing of how ids become text.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from .control_tokens import any_of, special_tokens
from .overlap import overlap

_FIRST_SIGN = 0xD800  # lone surrogates, which no decoded text contains


class StopStrings:
    """Search for stop strings in a text that arrives in parts. Text that may begin one is withheld.

    A decoded text leaves special tokens out. For those that a stop string spells (`<|im_end|>`), `signs` has
    a character by id: added in their place, it matches, and it is left out of the text that is taken.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> None:
        self._stop, self.signs = _with_signs(tokenizer, stop) if stop else ((), {})
        self._withheld = ""
        self._ready = ""
        self.reached = False

    def add(self, text: str) -> bool:
        """Add text; return True if it completes a stop string. Text from the stop string on is dropped."""
        self._withheld += text
        starts = [at for at in (self._withheld.find(stop) for stop in self._stop) if at >= 0]
        if starts:
            self._ready += self._withheld[: min(starts)]
            self._withheld, self.reached = "", True
            return True
        keep = max((overlap(self._withheld, stop) for stop in self._stop), default=0)
        cut = len(self._withheld) - keep
        self._ready += self._withheld[:cut]
        self._withheld = self._withheld[cut:]
        return False

    def is_completed_by(self, text: str) -> bool:
        """True if `text`, added now, would complete a stop string."""
        return bool(text) and any(stop in self._withheld + text for stop in self._stop)

    def release(self) -> None:
        """Make the withheld text ready, since no text follows."""
        self._ready += self._withheld
        self._withheld = ""

    def take(self) -> str:
        """Return the text that became ready since the last call."""
        text, self._ready = self._ready, ""
        for sign in self.signs.values():
            text = text.replace(sign, "")
        return text


def _with_signs(
    tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]
) -> tuple[tuple[str, ...], dict[int, str]]:
    """The stop strings with a sign in place of each special token that they spell, and the signs by id."""
    ids = special_tokens(tokenizer)
    spelled = any_of(ids)
    used = sorted({token for text in stop for token in spelled.findall(text)})
    signs = {token: chr(_FIRST_SIGN + at) for at, token in enumerate(used)}
    spelled_by_signs = tuple(spelled.sub(lambda match: signs[match.group()], text) for text in stop)
    return spelled_by_signs, {ids[token]: sign for token, sign in signs.items()}
