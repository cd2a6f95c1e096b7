"""GGUF files by the names that callers give them, and their configuration and tokenizer as a folder.

A name is a path that ends in .gguf, `package:NAME/FILE.gguf` for a file inside an installed Python package,
or `OWNER/NAME:FILE.gguf` for one on the Hub, of which the header alone is fetched. Reads no weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from ..cache_folder import CACHE_FOLDER, GGUF_HEADERS, cache_folder
from ..errors import PairUncheckableError
from ..package_files import PACKAGE, package_file
from .errors import reason
from .file_names import CONFIG, TOKENIZER
from .gguf_config import UnsupportedGgufError, architecture_of, configuration
from .gguf_header import GgufHeader, HeaderError, read_first_bytes
from .gguf_remote import HubFile, fetch_header, forget_fetched, hub_file, locate
from .gguf_tokenizer import UnknownTokenizerError, write_tokenizer

SUFFIX = ".gguf"
_CONVERSION = 1
"""To be raised with any change of what a header is converted to: folders are kept between loads."""
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_FOUR_BITS = {GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q4_K", "TQ1_0", "TQ2_0")}
"""Formats whose values blocks of 4 bits hold exactly."""
_EIGHT_BITS = 8.5
"""Most bits a weight, with its share of the scales, in formats that 8 bits hold up to rounding."""

Bits = Literal[4, 8, 32]


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file with its `folder`, which has its configuration and tokenizer in transformers' format.

    `remote` is the place of a file on the Hub; its `path` is None if it is not in the cache. `bits` are those
    of most weights on a CPU, `finer` the names of modules whose weights 4 bits do not hold.
    """

    folder: str
    format: str
    bits: Bits
    finer: frozenset[str]
    path: str | None = None
    remote: HubFile | None = None


def is_gguf(name: str) -> bool:
    """Return True for the name of a GGUF file, which need not exist."""
    return name.startswith(PACKAGE) or (name.endswith(SUFFIX) and not os.path.isdir(name))


def read_gguf(name: str, revision: str | None = None, token: str | None = None) -> GgufFile:
    """Return the file of that name, its header converted. `token` None stands for the machine's own.

    Raises PairUncheckableError for a file that cannot be read, or whose model or tokenizer is not known.
    """
    try:
        place = _place(name, revision)
        if isinstance(place, HubFile):
            remote, path = locate(place, token)
            header, data = fetch_header(remote, token) if path is None else _local_header(path)
        else:
            remote, path = None, place
            header, data = _local_header(path)
        if _SPLIT.search(name) or header.metadata.get("split.count") not in (None, 0, 1):
            raise UnsupportedGgufError(
                "is one of several files of a model. Join them with llama.cpp's gguf-split --merge"
            )
        return GgufFile(
            folder=str(_converted(header, data)),
            format=_format(header),
            bits=_bits(header),
            finer=_finer(header),
            path=None if path is None else str(path),
            remote=remote,
        )
    except PairUncheckableError:
        raise
    except Exception as error:  # files made by others hold values of any kind
        raise PairUncheckableError(f"{name} {_clause(error)}.") from error


def _place(name: str, revision: str | None) -> Path | HubFile:
    """The place that a name stands for. Raises PairUncheckableError for a file that is not here."""
    if name.startswith(PACKAGE):
        file = package_file(name)
        if file is None:
            raise PairUncheckableError(f"{name} names no file in a package. Write {PACKAGE}NAME/FILE.gguf.")
        if (path := file.path) is None:
            if file.folders:
                raise PairUncheckableError(f"The package {file.package} has no file {file.file}.")
            raise PairUncheckableError(f"{name} is not installed. Install it: {file.command}")
        return path
    if os.path.isfile(name):
        return Path(name)
    if (remote := hub_file(name, revision)) is not None:
        return remote
    raise PairUncheckableError(
        f"There is no file {name}. Check the path, or write owner/name:file.gguf for a file on the Hub."
    )


def header_of(path: str) -> GgufHeader:
    """Return the header of a local file. Raises HeaderError, OSError."""
    return _local_header(Path(path))[0]


def bits_of(type_number: int) -> Bits:
    """Return the bits in which a CPU's runner holds a GGML type. Raises UnsupportedGgufError."""
    try:
        kind = GGMLQuantizationType(type_number)
        values, size = GGML_QUANT_SIZES[kind]
    except (KeyError, ValueError) as error:
        raise UnsupportedGgufError(
            f"has a tensor of the type {type_number}, which the package gguf does not know. Update it: pip "
            "install --upgrade gguf"
        ) from error
    if kind in _FOUR_BITS:
        return 4
    return 8 if 8 * size / values <= _EIGHT_BITS else 32


def _clause(error: Exception) -> str:
    if isinstance(error, UnsupportedGgufError):
        return str(error)
    if isinstance(error, HeaderError):
        return f"is no readable GGUF file: {error}. Download or copy it again"
    if isinstance(error, UnknownTokenizerError):
        return f"has a tokenizer that cannot be converted: {error}. Choose the safetensors of the model"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return (
        f"has a header with a value that cannot be used ({type(error).__name__}: {reason(error)}). Download "
        "it again, or choose the safetensors of the model"
    )


def _local_header(path: Path) -> tuple[GgufHeader, bytes]:
    stat = path.stat()
    return _header_at(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=2)  # a load asks for it several times, and it has the whole vocabulary
def _header_at(path: str, size: int, modified_ns: int) -> tuple[GgufHeader, bytes]:
    def first(count: int) -> bytes:
        with open(path, "rb") as stream:
            return stream.read(count)

    return read_first_bytes(first)


def forget_headers() -> None:
    """Free what is kept of headers: a vocabulary takes up to a hundred megabytes."""
    _header_at.cache_clear()
    forget_fetched()


def _converted(header: GgufHeader, data: bytes) -> Path:
    """The folder with the files that the header is converted to, in the cache.

    Raises PairUncheckableError if the cache cannot be written.
    """
    key = hashlib.sha256(f"gguf {_CONVERSION} ".encode() + data).hexdigest()
    folder = cache_folder() / GGUF_HEADERS / key
    if _is_whole(folder):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix="part-") as unfinished:
            made = Path(unfinished, key)
            made.mkdir()
            values = configuration(header)
            write_tokenizer(header.metadata, made)
            (made / CONFIG).write_text(json.dumps(values, indent=1), encoding="utf-8")
            if folder.exists() and not _is_whole(folder):
                os.replace(folder, Path(unfinished, "broken"))
            try:
                os.replace(made, folder)
            except OSError:
                if not _is_whole(folder):  # another load may have made it meanwhile
                    raise
    except OSError as error:
        raise PairUncheckableError(
            f"The folder {folder.parent}, for what is converted of GGUF files, cannot be written "
            f"({error.strerror or error}). Set {CACHE_FOLDER} to another folder."
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    return all((folder / name).is_file() and (folder / name).stat().st_size for name in (CONFIG, TOKENIZER))


def _bits(header: GgufHeader) -> Bits:
    """The format of a CPU's runner for half of the layers' weights or more."""
    counts: Counter[Bits] = Counter()
    for name, tensor in header.tensors.items():
        if name.startswith("blk.") and len(tensor.shape) > 1:
            counts[bits_of(tensor.type)] += tensor.count
    if 2 * counts[4] >= counts.total():
        return 4
    return 8 if counts[8] >= counts[32] else 32


def _finer(header: GgufHeader) -> frozenset[str]:
    architecture = architecture_of(header)
    names = (
        architecture.weight_name(name)
        for name, tensor in header.tensors.items()
        if len(tensor.shape) > 1 and bits_of(tensor.type) != 4
    )
    return frozenset(name.removesuffix(".weight") for name in names if name is not None)


def _format(header: GgufHeader) -> str:
    """The format for people: llama.cpp's name of the mixture, else the bits a weight."""
    try:
        name = LlamaFileType(header.metadata.get("general.file_type")).name
        return f"GGUF {name.removeprefix('MOSTLY_').removeprefix('ALL_')}"
    except ValueError:
        return "GGUF"
