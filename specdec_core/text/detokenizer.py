"""Incremental detokenization: the text of a growing list of ids, each part of it as soon as it is final.

Joined, the parts are the tokenizer's decode of all ids. Knows nothing of the end of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ..trace import first_difference
from .decoder import Decoder

_REPLACEMENT_CHARACTER = "\ufffd"
_OPEN_BYTES = 3
"""Bytes of a character that lacks its last ones, at most; each may show as U+FFFD."""
_TAIL = 4
"""Ids that always stay at the end of the window: more than the bytes of a character."""
_GROWTH = 8
"""Ids that are added to the window before some are dropped."""
_LONGEST_RUN = 256
"""Byte tokens whose text is held back. Longer runs are cut, so that a text of such characters appears."""


class Detokenizer:
    """Text of ids that follow the ids `before`.

    Decodes a window: a head, since tokenizers write a token differently at the start of a text, and the
    latest ids. Ids between them are dropped where the text after them stays the same.

    Byte tokens of byte fallback (`<0xF0>`) wait for the end of their run, since one byte that is not UTF-8
    makes U+FFFD of every byte in it. `piece` does not wait: it is what the last token adds to a valid run.
    """

    __slots__ = (
        "_broken",
        "_decoder",
        "_emitted",
        "_head",
        "_limit",
        "_open",
        "_run",
        "_spelled",
        "_window",
        "piece",
    )

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        self._decoder = Decoder(tokenizer)
        self._window = self._ending(before)
        self._head = len(self._window)
        self._limit = self._head + _TAIL + _GROWTH
        self._emitted = self._decoder.decode(self._window)
        self._run: list[int] = []
        self._open = b""  # bytes of the run's last character, while it is incomplete
        self._spelled = ""  # characters of the run so far
        self._broken = False  # the run has bytes that are not UTF-8; its text is known before its end
        self.piece = ""

    def push(self, token_id: int) -> str:
        """Return the text that is final with this token, "" while a character lacks bytes. Sets `piece`."""
        self.piece = ""
        if self._decoder.whole_text_only:
            self._window.append(token_id)
            return ""
        if self._decoder.byte_fallback:
            if (byte := self._decoder.byte(token_id)) is not None:
                return self._push_byte(token_id, byte)
            if (self._run or self._broken) and self._decoder.is_skipped(token_id):
                return ""
        spelled = self._close_run()
        self._window.append(token_id)
        text = self._decoder.decode(self._window)
        if text == self._emitted and self._decoder.is_skipped(token_id):
            self._window.pop()
            return ""
        final = self._advance(text, self._final_length(text))
        self.piece = final[len(spelled) :]
        return final

    @property
    def pending(self) -> str:
        """The characters of byte tokens that are held back; "" while one of them is incomplete."""
        return "" if self._open else self._spelled

    def flush(self) -> str:
        """Return the text that was held back; incomplete characters become U+FFFD."""
        spoiled = _REPLACEMENT_CHARACTER * len(self._run) if self._open else ""
        if spoiled:
            self._run.clear()
        self._close_run()
        text = self._decoder.decode(self._window)
        return self._advance(text, len(text)) + spoiled

    def copy(self) -> Detokenizer:
        """Return an independent detokenizer with the same state."""
        twin = Detokenizer.__new__(Detokenizer)  # without the constructor's decoding
        twin._decoder, twin._head, twin._limit = self._decoder, self._head, self._limit
        twin._window, twin._emitted = self._window.copy(), self._emitted
        twin._run, twin._open = self._run.copy(), self._open
        twin._spelled, twin._broken, twin.piece = self._spelled, self._broken, self.piece
        return twin

    # --- byte fallback --------------------------------------------------------------------------

    def _push_byte(self, token_id: int, byte: int) -> str:
        if self._broken:
            self.piece = _REPLACEMENT_CHARACTER
            return self.piece
        self._run.append(token_id)
        self._open += bytes([byte])
        try:
            self.piece = self._open.decode()
        except UnicodeDecodeError as error:
            return "" if error.reason == "unexpected end of data" else self._break_run()
        self._open = b""
        self._spelled += self.piece
        return self.flush() if len(self._run) >= _LONGEST_RUN else ""

    def _break_run(self) -> str:
        """Return the text of a run that is not UTF-8. A byte that is not UTF-8 on its own replaces it."""
        self.piece = _REPLACEMENT_CHARACTER * len(self._open)
        spoiled = _REPLACEMENT_CHARACTER * len(self._run)
        highest = max(self._run, key=lambda token_id: self._decoder.byte(token_id) or 0)
        self._run.clear()
        self._close_run()
        self._window.append(highest)
        self._emitted = self._decoder.decode(self._window)
        self._broken = True
        return spoiled

    def _close_run(self) -> str:
        """Move the run into the window. Return its characters."""
        spelled = self._spelled
        self._window += self._run
        self._run.clear()
        self._open, self._spelled, self._broken = b"", "", False
        return spelled

    # --- the window -----------------------------------------------------------------------------

    def _ending(self, before: Sequence[int]) -> list[int]:
        """The last ids of `before` that have a text, from the beginning of a run of byte tokens."""
        length = _OPEN_BYTES
        while length < len(before):
            if self._decoder.byte_fallback and self._decoder.byte(before[-length]) is not None:
                length += 1
            elif not self._decoder.decode(list(before[-length:])):
                length *= 2
            else:
                break
        return list(before[-length:])

    def _final_length(self, text: str) -> int:
        """Length of the part of `text`, the decoded window, that no later token changes."""
        if self._decoder.byte_fallback:
            return len(text)
        if self._decoder.follower:
            followed = self._decoder.decode(self._window + self._decoder.follower)
            text = text[: first_difference(text, followed)]
        if not text.endswith(_REPLACEMENT_CHARACTER):
            return len(text)
        return max(len(text.rstrip(_REPLACEMENT_CHARACTER)), len(text) - _OPEN_BYTES)

    def _advance(self, text: str, end: int) -> str:
        """Return what `text`, the decoded window, has up to `end` after the emitted text; emit it."""
        start = len(self._emitted)
        if not text.startswith(self._emitted):  # the first ids completed a character that begins in `before`
            start = first_difference(text, self._emitted) or 0
        final = text[start:end]
        if end >= start:
            self._emitted = text[:end]
        if len(self._window) > self._limit:
            self._shorten(text)
        return final

    def _shorten(self, text: str) -> None:
        """Drop ids between the head and the latest ones, if the text after them stays the same without."""
        decode, window = self._decoder.decode, self._window
        # If nothing has a text yet, nothing needs to stay in front of the latest ids.
        self._head = next((n for n in range(self._head, len(window) - _TAIL) if decode(window[:n])), 0)
        head = decode(window[: self._head])
        for cut in range(len(window) - _TAIL, self._head, -1):
            dropped = decode(window[:cut])
            if len(dropped) > len(self._emitted) or not text.startswith(dropped):
                continue
            kept = window[: self._head] + window[cut:]
            shorter = decode(kept)
            if shorter == head + text[len(dropped) :]:
                self._emitted = shorter[: len(shorter) - (len(text) - len(self._emitted))]
                self._window, self._limit = kept, len(kept) + _GROWTH
                return
        self._limit = 2 * len(window)
