"""A tokenizer's decode of a list of ids, and the properties that decide how much of a text may be streamed.

Special tokens are skipped. Knows nothing of answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_BYTE_TOKEN = re.compile("<0x([0-9A-Fa-f]{2})>")


class Decoder:
    """Decoding for one tokenizer.

    `byte_fallback`: consecutive byte tokens become characters only if all their bytes together are UTF-8.
    `whole_text_only`: a token can change the text far before it.
    `follower` holds an id that may come next, if the tokenizer is written in Python: it may rewrite the end.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.decode = _decode_function(tokenizer)
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        steps = [] if backend is None else _steps(backend.decoder)
        self._id_to_token = None if backend is None else backend.id_to_token
        self.byte_fallback = any(step["type"] == "ByteFallback" for step in steps)
        self.whole_text_only = _rewrites_whole_text(steps)
        self.follower = self._visible_id() if backend is None else []

    def byte(self, token_id: int) -> int | None:
        """Return the byte that the token stands for under byte fallback, None for other tokens."""
        token = self._id_to_token(token_id) if self._id_to_token else None
        if token is None or len(token) != 6 or (match := _BYTE_TOKEN.fullmatch(token)) is None:
            return None
        return int(match[1], 16)

    def is_skipped(self, token_id: int) -> bool:
        """True if the token leaves no trace in a text because it is flagged special."""
        spelled = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return bool(spelled) and not self.decode([token_id])

    def _visible_id(self) -> list[int]:
        """An id with a text of its own, in a list; an empty list if there is none."""
        candidates = [*self._tokenizer.encode("a", add_special_tokens=False), *range(len(self._tokenizer))]
        return next(([token_id] for token_id in candidates if self.decode([token_id])), [])


def _decode_function(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[int]], str]:
    """The tokenizer's decode. Fast tokenizers that do not override it skip its Python wrapper, which takes
    as long again.
    """
    kind, fast = type(tokenizer), PreTrainedTokenizerFast
    if isinstance(tokenizer, fast) and (kind.decode, kind._decode) == (fast.decode, fast._decode):
        return partial(tokenizer.backend_tokenizer.decode, skip_special_tokens=True)
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return cast("Callable[[list[int]], str]", decode)  # a list of str only for lists of lists


def _steps(decoder: Any) -> list[dict[str, Any]]:
    """The steps of a decoder of the tokenizers library, in order."""
    return [] if decoder is None else list(_flat(json.loads(decoder.__getstate__())))


def _flat(step: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if step["type"] == "Sequence":
        for part in step["decoders"]:
            yield from _flat(part)
    else:
        yield step


def _rewrites_whole_text(steps: list[dict[str, Any]]) -> bool:
    """True if, after the tokens are fused, a pattern that may span several of them is replaced."""
    fused = False
    for step in steps:
        if fused and step["type"] == "Replace" and len(step["pattern"].get("String", "  ")) > 1:
            return True
        fused = fused or step["type"] in ("Fuse", "ByteLevel")
    return False
