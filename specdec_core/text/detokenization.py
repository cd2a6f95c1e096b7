"""Incremental detokenization: ids → text without half characters, ended by an EOS or a stop string.

Knows nothing of rounds or probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import cast

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ..trace import FinishReason

_REPLACEMENT_CHARACTER = "\ufffd"
_WINDOW = 6


class Detokenizer:
    """Decodes a window of recent ids with and without the new one, as vLLM and TGI do: some tokenizers
    write a token differently at the start of a text, and bytes of one character can span tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        self._decode_ids = _decoder(tokenizer)
        self._window = list(before[-_WINDOW:])
        self._emitted = self._decode()

    def push(self, token_id: int) -> str:
        """Return the text that this token completes, "" while a character lacks bytes."""
        self._window.append(token_id)
        text = self._decode()
        return "" if text.endswith(_REPLACEMENT_CHARACTER) else self._advance(text)

    def flush(self) -> str:
        """Return the rest of the text at the end of an answer; incomplete characters become U+FFFD."""
        return self._advance(self._decode())

    def copy(self) -> Detokenizer:
        """Return an independent detokenizer with the same state."""
        twin = Detokenizer.__new__(Detokenizer)  # without the constructor's decoding
        twin._decode_ids, twin._window, twin._emitted = self._decode_ids, list(self._window), self._emitted
        return twin

    def _advance(self, text: str) -> str:
        """Return the new part of `text`, the decoded window, and mark all of it as emitted."""
        piece = text[len(self._emitted) :]
        self._emitted = text
        if len(self._window) > 2 * _WINDOW:
            self._window = self._window[-_WINDOW:]
            self._emitted = self._decode()
        return piece

    def _decode(self) -> str:
        return self._decode_ids(self._window)


def _decoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    """The tokenizer's decode. Fast tokenizers that do not override it skip its Python wrapper, which takes
    as long again.
    """
    kind, fast = type(tokenizer), PreTrainedTokenizerFast
    if isinstance(tokenizer, fast) and (kind.decode, kind._decode) == (fast.decode, fast._decode):
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return cast("Callable[[list[int]], str]", decode)  # a list of str only for lists of lists


class AnswerText:
    """The text of one answer, from its ids: finds the end, and withholds the possible start of a stop string.

    `before` are ids of the context in front of the answer, `eos_ids` and `stop` what ends it.
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
        self._withheld = ""
        self._ready = ""
        self._stopped = False
        self._before: list[Detokenizer] = []
        self.pieces: list[str] = []
        """The text of each id that the last `feed` took."""

    def feed(self, ids: Sequence[int]) -> tuple[int, FinishReason | None]:
        """Take ids up to the one that ends the answer. Return their number, and the reason if one ended it.

        Sets `pieces`.
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
        """Return the text that became ready since the last call; with `final`, the withheld text too."""
        if final and not self._stopped and not self._append(self._detokenizer.flush()):
            self._ready += self._withheld
            self._withheld = ""
        text, self._ready = self._ready, ""
        return text

    @property
    def stopped(self) -> bool:
        """True once a stop string ended the text."""
        return self._stopped

    def dropped(self, count: int, ids: Sequence[int]) -> list[str]:
        """Return the text of each of `ids`, drafts that are not in the answer, as if they had followed the
        first `count` ids of the last `feed`.
        """
        if not ids:
            return []
        instead = self._before[count]
        return ["" if token_id in self._eos_ids else instead.push(token_id) for token_id in ids]

    def _append(self, text: str) -> bool:
        """Add text; return True if it completes a stop string. Text from the stop string on is dropped."""
        self._withheld += text
        starts = [at for at in (self._withheld.find(s) for s in self._stop) if at >= 0]
        if starts:
            self._ready += self._withheld[: min(starts)]
            self._withheld, self._stopped = "", True
            return True
        keep = max((self._overlap(s) for s in self._stop), default=0)
        cut = len(self._withheld) - keep
        self._ready += self._withheld[:cut]
        self._withheld = self._withheld[cut:]
        return False

    def _overlap(self, stop: str) -> int:
        """Length of the longest suffix of the withheld text that is a prefix of `stop`."""
        longest = min(len(stop) - 1, len(self._withheld))
        return next((n for n in range(longest, 0, -1) if stop.startswith(self._withheld[-n:])), 0)
