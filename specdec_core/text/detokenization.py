"""The text of an answer: ids → text without half characters, ended by an EOS or a stop string.

Knows nothing of rounds or probabilities.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from ..trace import FinishReason
from .control_tokens import special_tokens
from .detokenizer import Detokenizer
from .stop_strings import StopStrings
from .thoughts import ThoughtSplit, ThoughtTags


class AnswerText:
    """The text of one answer, from its ids: finds the end, and withholds the possible start of a stop string.

    `before` are ids of the context in front of the answer, `eos_ids` and `stop` what ends it. A stop string
    may spell special tokens, alone or amid text, though the text leaves them out. `tags` are those of
    thoughts, which are no part of the text, and `thought_opened` is True if `before` has the opening one.
    `alternatives` makes `alternatives_after` possible.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        before: Sequence[int],
        eos_ids: Collection[int],
        stop: Sequence[str],
        *,
        tags: ThoughtTags | None = None,
        thought_opened: bool = False,
        alternatives: bool = False,
    ) -> None:
        self._detokenizer = Detokenizer(tokenizer, before)
        self._eos_ids = eos_ids
        self._text = StopStrings(tokenizer, stop)
        self._before_last = self._detokenizer
        self._before_first = self._detokenizer if alternatives else None
        self._split = None if tags is None else ThoughtSplit(tags, thought_opened)
        self._split_of_tokens = None if tags is None else ThoughtSplit(tags, thought_opened)
        self._tokens_before_answer = 0
        self._special_tags = _special_tags(tokenizer, tags)
        self._closing = "" if tags is None else tags.closing
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self.thought = ""
        """The part of a thought that became ready with the last `take`."""
        self.pieces: list[str] = []
        """The text of each id that the last `feed` took."""

    @property
    def thought_tokens(self) -> int:
        """Tokens so far of a thought that the answer begins with, its tags among them."""
        split = self._split_of_tokens
        if split is None or self._split is None or not self._split.found:
            return 0
        if self._split.answers and not split.answers:
            return self._tokens_through_closing()
        return self._tokens_before_answer

    def _tokens_through_closing(self) -> int:
        """The same where tokens have no text of their own: for a tokenizer that rewrites the whole text."""
        decoded = (self._tokenizer.decode(self._ids[:count]) for count in range(len(self._ids) + 1))
        return next((count for count, text in enumerate(decoded) if self._closing in str(text)), 0)

    def feed(self, ids: Sequence[int]) -> tuple[int, FinishReason | None]:
        """Take ids up to the one that ends the answer. Return their number, and the reason if one ended it.

        Sets `pieces`.
        """
        count, reason = self._feed(ids)
        split = self._split_of_tokens
        if split is not None and not split.answers:
            self._ids += ids[:count]
            for piece in self.pieces:
                split.add(piece)
                self._tokens_before_answer += not split.answers
        return count, reason

    def _feed(self, ids: Sequence[int]) -> tuple[int, FinishReason | None]:
        self.pieces = []
        if self._before_first is not None:
            self._before_first = self._detokenizer.copy()
        for count, token_id in enumerate(ids, start=1):
            if count == len(ids):
                self._before_last = self._detokenizer.copy()
            if token_id in self._eos_ids:
                self.pieces.append("")
                return count, "eos"
            if (sign := self._text.signs.get(token_id)) is not None:
                self.pieces.append("")
                text = self._detokenizer.flush() + sign
            elif (tag := self._special_tags.get(token_id)) is not None:
                self.pieces.append(tag)
                text = self._detokenizer.flush() + tag
            else:
                text = self._detokenizer.push(token_id)
                self.pieces.append(self._detokenizer.piece)
            if self._text.add(text) or self._ends_with(self._detokenizer.pending):
                return count, "stop"
        return len(ids), None

    def _ends_with(self, pending: str) -> bool:
        """True if text that is still held back completes a stop string; it is held back no longer."""
        return self._text.is_completed_by(pending) and self._text.add(self._detokenizer.flush())

    def take(self, *, final: bool = False) -> str:
        """Return the text that became ready since the last call; with `final`, the withheld text too. Sets
        `thought`.
        """
        if final and not self.stopped and not self._text.add(self._detokenizer.flush()):
            self._text.release()
        text = self._text.take()
        if self._split is None:
            return text
        self.thought, text = self._split.add(text)
        if final:
            thought, rest = self._split.finish()
            self.thought, text = self.thought + thought, text + rest
        return text

    @property
    def stopped(self) -> bool:
        """True once a stop string ended the text."""
        return self._text.reached

    def dropped(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each of `ids`, rejected and later drafts, as if they stood in place of the last
        id of the last `feed`, the correction.
        """
        if not ids:
            return []
        instead = self._before_last.copy()
        pieces: list[str] = []
        for token_id in ids:
            if token_id not in self._eos_ids:
                instead.push(token_id)
            pieces.append("" if token_id in self._eos_ids else instead.piece)
        return pieces

    def alternatives_after(self, ids: Sequence[int], candidates: Sequence[int]) -> list[str]:
        """Return the text of each candidate, as if it alone followed `ids` from where the last `feed` began.
        Only with `alternatives`.
        """
        if self._before_first is None:
            raise ValueError("The text was made without alternatives.")
        before = self._before_first.copy()
        for token_id in ids:
            if token_id not in self._eos_ids:
                before.push(token_id)
        return [self._piece_after(before, token_id) for token_id in candidates]

    def _piece_after(self, before: Detokenizer, token_id: int) -> str:
        if token_id in self._eos_ids:
            return ""
        after = before.copy()
        after.push(token_id)
        return after.piece


def _special_tags(tokenizer: PreTrainedTokenizerBase, tags: ThoughtTags | None) -> dict[int, str]:
    """The tags by id that are special tokens, which a decoded text leaves out."""
    if tags is None:
        return {}
    ids = special_tokens(tokenizer)
    return {ids[tag]: tag for tag in (tags.opening, tags.closing) if tag in ids}
