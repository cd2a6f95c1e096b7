"""Safetensors files of a checkpoint: the index of its shards, and the dtypes and shapes in their headers.

Reads no weights.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import LoadError
from ..units import counted
from .file_names import WEIGHTS, WEIGHTS_INDEX


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file. `dtype` has the name that safetensors gives it, such as F32 or F8_E4M3."""

    dtype: str
    shape: tuple[int, ...]


def shard_names(index: Path) -> list[str]:
    """Return the names of the files that model.safetensors.index.json lists. Raises LoadError."""
    again = f"Download or copy {WEIGHTS_INDEX} again."
    try:
        values = json.loads(index.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"{index} cannot be read as JSON ({error}). {again}") from error
    shards = values.get("weight_map") if isinstance(values, Mapping) else None
    if not (
        shards and isinstance(shards, Mapping) and all(isinstance(name, str) for name in shards.values())
    ):
        raise LoadError(f"{index} has no weight_map that names the file of each weight. {again}")
    if not isinstance(values.get("metadata"), Mapping):
        raise LoadError(
            f'{index} has no metadata, which transformers needs. {again} Or add "metadata": {{}}.'
        )
    return sorted(set(shards.values()))


def stored_tensors(folder: Path, explicit: str | None = None) -> dict[str, StoredTensor]:
    """Return the tensors, by name, in the files that transformers would load from a folder.

    `explicit` is the file that config.json names (`transformers_weights`). Raises LoadError if files are
    missing, and SafetensorError that names the file if one is corrupt.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in _files(folder, [explicit] if explicit else [WEIGHTS, WEIGHTS_INDEX]):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 (no dict)
                    header = opened.get_slice(name)
                    tensors[name] = StoredTensor(header.get_dtype(), tuple(header.get_shape()))
        except SafetensorError as error:
            raise SafetensorError(f"{file.name}: {error}") from error
    return tensors


def _files(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return the files behind the first of `names` that exists, those of the shards for an index."""
    first = next((folder / name for name in names if (folder / name).is_file()), None)
    if first is None:
        raise LoadError(_no_weights(folder, " nor ".join(names)))
    if first.suffix != ".json":
        return [first]
    shards = [folder / name for name in shard_names(first)]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise LoadError(
            f"{folder} lacks {counted(len(missing), 'file')} of the weights that {first.name} lists, the "
            f"first being {missing[0]}. Download or copy it again."
        )
    return shards


def _no_weights(folder: Path, names: str) -> str:
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    if others:
        return f"{folder} has {others[0]}, but no {names}. Download or copy that again."
    return (
        f"There are no weights in {folder}: no *.safetensors file. Only safetensors are loaded; convert "
        "other formats, or give the folder that holds them."
    )
