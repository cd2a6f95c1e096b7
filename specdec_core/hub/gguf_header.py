"""Header of a GGUF file: its metadata, and the types, shapes and places of its tensors.

Reads bytes that may end after the header; gguf's own reader needs the whole file, and takes 6 s for 50,000
tokens. Knows nothing of what the values mean. Format: docs/gguf.md of the ggml project.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_FIRST_BYTES = 2**23
"""Bytes of a file that are read at first; doubled until they hold the header."""
_MOST_BYTES = 2**28
_MOST_ENTRIES = 2**20
"""More metadata entries or tensors than any file has."""
_MOST_ITEMS = 2**24
"""Longest array or string in the metadata."""
_CUT_OFF = "it ends within its header"
_TOO_MANY = "it counts {:,} items in one place, more than any file has"
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Codes of struct by the number of a value's type."""


class HeaderError(ValueError):
    """A header that is damaged, or of another format or version."""


class IncompleteHeaderError(HeaderError):
    """A stream that ends within the header."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor in the file. `type` is the number of its GGML type, `shape` in the order of PyTorch, `offset`
    in bytes from the file's beginning.
    """

    type: int
    shape: tuple[int, ...]
    offset: int

    @property
    def count(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata by key, with strings, numbers and lists as Python has them, and tensors by name."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """The architecture by llama.cpp's name."""
        return str(self.metadata.get("general.architecture"))


def read_header(data: bytes) -> tuple[GgufHeader, bytes]:
    """Read the header at the beginning of `data`; return it with its bytes.

    Raises IncompleteHeaderError, HeaderError.
    """
    parser = _Parser(data)
    header = parser.header()
    return header, data[: parser.at]


def read_first_bytes(first: Callable[[int], bytes]) -> tuple[GgufHeader, bytes]:
    """Read the header of a file, of which `first` returns so many first bytes; return it with its bytes.

    Raises IncompleteHeaderError, HeaderError, and what `first` raises.
    """
    count = _FIRST_BYTES
    while True:
        data = first(count)
        try:
            return read_header(data)
        except IncompleteHeaderError:
            if len(data) < count or count >= _MOST_BYTES:
                raise
            count *= 2


class _Parser:
    """A reader of values one after the other; `at` is the place of the next one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def header(self) -> GgufHeader:
        magic = self._bytes(4)
        if magic != _MAGIC:
            raise HeaderError(f"it begins with {magic!r} in place of {_MAGIC!r}")
        version = self._number("I")
        if version not in _VERSIONS:
            raise HeaderError(f"it has version {version} of the format, and {_VERSIONS} are read")
        tensor_count, entry_count = (self._count("Q", _MOST_ENTRIES) for _ in range(2))
        metadata = {self._string(): self._value(self._number("I")) for _ in range(entry_count)}
        tensors = [(self._string(), *self._tensor()) for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise HeaderError(f"its general.alignment is {alignment!r}")
        start = -(-self.at // alignment) * alignment
        return GgufHeader(
            metadata, {name: GgufTensor(kind, shape, start + at) for name, kind, shape, at in tensors}
        )

    def _tensor(self) -> tuple[int, tuple[int, ...], int]:
        """Type, shape and offset from the first tensor."""
        dimensions = self._count("I", 8)
        shape = tuple(self._number("Q") for _ in range(dimensions))
        return self._number("I"), shape[::-1], self._number("Q")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            item, count = self._number("I"), self._count("Q", _MOST_ITEMS)
            if item == _ARRAY:
                raise HeaderError("it has an array of arrays")
            if item in _NUMBERS:
                return list(struct.unpack(f"<{count}{_NUMBERS[item]}", self._bytes(count * _size(item))))
            if item == _STRING:
                return self._strings(count)
            return [self._value(item) for _ in range(count)]
        if kind not in _NUMBERS:
            raise HeaderError(f"it has a value of the unknown type {kind}")
        return self._number(_NUMBERS[kind])

    def _string(self) -> str:
        return self._strings(1)[0]

    def _strings(self, count: int) -> list[str]:
        """`count` strings in a row. A vocabulary has so many that each step here counts."""
        data, at, end = self._data, self.at, len(self._data)
        length_at = struct.Struct("<Q").unpack_from
        strings = []
        for _ in range(count):
            start = at + 8
            if start > end:
                raise IncompleteHeaderError(_CUT_OFF)
            (length,) = length_at(data, at)
            if length > _MOST_ITEMS:
                raise HeaderError(_TOO_MANY.format(length))
            at = start + length
            if at > end:
                raise IncompleteHeaderError(_CUT_OFF)
            strings.append(data[start:at].decode("utf-8", errors="replace"))
        self.at = at
        return strings

    def _count(self, code: str, most: int) -> int:
        count = self._number(code)
        if count > most:
            raise HeaderError(_TOO_MANY.format(count))
        return count

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._bytes(struct.calcsize(f"<{code}")))[0]

    def _bytes(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self._data):
            raise IncompleteHeaderError(_CUT_OFF)
        return self._data[start : self.at]


def _size(kind: int) -> int:
    return struct.calcsize(f"<{_NUMBERS[kind]}")
