"""Ids → text as it grows: never half a character, and what ends an answer found on the way.

Knows nothing of rounds or probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..trace import FinishReason

_HALF_CHARACTER = "\ufffd"
_WINDOW = 6


class Detokenizer:
    """Decodes a window of recent ids with and without the new one, as vLLM and TGI do: some tokenizers
    write a token differently at the start of a text, and bytes of one character can span tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        self._decode_ids = _decoder(tokenizer)
        self._window = list(before[-_WINDOW:])
        self._shown = self._decode()

    def push(self, token_id: int) -> str:
        """The text that this token completes, "" while a character lacks bytes."""
        self._window.append(token_id)
        text = self._decode()
        return "" if text.endswith(_HALF_CHARACTER) else self._advance(text)

    def flush(self) -> str:
        """What is left when nothing more will come: bytes that never became a character show as U+FFFD."""
        return self._advance(self._decode())

    def copy(self) -> Detokenizer:
        """Another one that goes on from here."""
        twin = Detokenizer.__new__(Detokenizer)  # whose window need not be decoded
        twin._decode_ids, twin._window, twin._shown = self._decode_ids, list(self._window), self._shown
        return twin

    def _advance(self, text: str) -> str:
        """What `text`, the window decoded, adds to what was shown of it. All of the window is shown then."""
        piece = text[len(self._shown) :]
        self._shown = text
        if len(self._window) > 2 * _WINDOW:
            self._window = self._window[-_WINDOW:]
            self._shown = self._decode()
        return piece

    def _decode(self) -> str:
        return self._decode_ids(self._window)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    """The tokenizer's decode, without the wrapper that takes as long again where there is only that one."""
    kind, fast = type(tokenizer), PreTrainedTokenizerFast
    if isinstance(tokenizer, fast) and (kind.decode, kind._decode) == (fast.decode, fast._decode):
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class AnswerText:
    """The text of one answer: fed ids, it says where the answer ends, and holds back what might yet turn
    out to be the start of a stop string.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        before: Sequence[int],
        eos_ids: Collection[int],
        stop: Sequence[str],
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, before)
        self._eos_ids = eos_ids
        self._stop = stop
        self._held = ""
        self._ready = ""
        self._stopped = False
        self._before: list[Detokenizer] = []
        self.pieces: list[str] = []

    def feed(self, ids: Sequence[int]) -> tuple[int, FinishReason | None]:
        """Takes ids up to the one that ends the answer: how many were taken, and the reason if one did.

        `pieces` then holds the text of each id taken.
        """
        self.pieces, self._before = [], []
        for count, token_id in enumerate(ids, start=1):
            self._before.append(self._detokenizer.copy())
            if token_id in self._eos_ids:
                self.pieces.append("")
                return count, "eos"
            piece = self._detokenizer.push(token_id)
            self.pieces.append(piece)
            if self._append(piece):
                return count, "stop"
        return len(ids), None

    def take(self, *, final: bool = False) -> str:
        """The text that may be shown now and was not yet; with `final`, everything that was held back."""
        if final and not self._stopped and not self._append(self._detokenizer.flush()):
            self._ready += self._held
            self._held = ""
        text, self._ready = self._ready, ""
        return text

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the text."""
        return self._stopped

    def dropped(self, count: int, ids: Sequence[int]) -> list[str]:
        """What drafts that do not stand would have added, one after the other, in the place of what was fed
        last from `count` on.
        """
        if not ids:
            return []
        instead = self._before[count]
        return ["" if token_id in self._eos_ids else instead.push(token_id) for token_id in ids]

    def _append(self, text: str) -> bool:
        """Whether a stop string is complete now; then all before it is ready and the rest is dropped."""
        self._held += text
        found = [at for at in (self._held.find(s) for s in self._stop) if at >= 0]
        if found:
            self._ready += self._held[: min(found)]
            self._held, self._stopped = "", True
            return True
        keep = max((self._overlap(s) for s in self._stop), default=0)
        cut = len(self._held) - keep
        self._ready += self._held[:cut]
        self._held = self._held[cut:]
        return False

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._held[-n:])), 0)
