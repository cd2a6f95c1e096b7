"""The folder in which results of long computations are kept for the next load. Can be deleted at any time."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CACHE_FOLDER = "SPECDEC_CACHE"
"""Environment variable with another folder."""

INT4_WEIGHTS = "int4-weights"
"""Folder of quantized weights."""
GGUF_HEADERS = "gguf-headers"
"""Folder of folders with the configuration and the tokenizer of a GGUF file."""
ENTRY, UNFINISHED = ".safetensors", ".part"
_OF_HEADERS = (".json", ".jinja")


@dataclass(frozen=True, slots=True)
class CacheContents:
    """The folder with the number of its files, and their bytes."""

    folder: str
    files: int
    size_bytes: int


def cache_folder() -> Path:
    """Return the folder, which need not exist: `specdec` beside the Hub's own cache."""
    if own := os.environ.get(CACHE_FOLDER):
        return Path(os.path.expanduser(own))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "specdec"


def cache_contents() -> CacheContents:
    """Return what the folder holds."""
    sizes = []
    for path in _files():
        with suppress(OSError):  # another process cleared it meanwhile
            sizes.append(path.stat().st_size)
    return CacheContents(str(cache_folder()), len(sizes), sum(sizes))


def clear_cache() -> CacheContents:
    """Delete our files in the folder. Return what it held. Raises OSError for one that cannot be deleted."""
    contents = cache_contents()
    for path in _files():
        path.unlink(missing_ok=True)
    for path in sorted((cache_folder() / GGUF_HEADERS).rglob("*"), reverse=True):  # the inner folders first
        with suppress(OSError):  # a file, or a folder with files that are not ours
            path.rmdir()
    return contents


def _files() -> list[Path]:
    """Our own files: the folder that a person named may hold others."""
    weights = (cache_folder() / INT4_WEIGHTS).glob("*")
    headers = (cache_folder() / GGUF_HEADERS).rglob("*")
    return [
        *(path for path in weights if path.suffix in (ENTRY, UNFINISHED)),
        *(path for path in headers if path.suffix in _OF_HEADERS),
    ]
