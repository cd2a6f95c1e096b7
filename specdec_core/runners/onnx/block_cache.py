"""Weights in blocks of 4 bits, kept in the cache folder: their search takes a minute for a billion weights.

An entry is a file of one weight, named after a hash of its values and of the search's version. So it fits
whatever model, machine or version of ONNX Runtime asks for it, and two loads at once write the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...cache_folder import ENTRY, INT4_WEIGHTS, UNFINISHED, cache_folder
from .blocks import BLOCK, SEARCH_VERSION, PackedInt4Blocks, int4_blocks

_log = logging.getLogger(__name__)

_FEWEST_WEIGHTS = 2**17
"""Smaller ones are searched in less time than a file is worth."""
_LEFT_FREE = 2**30
"""Bytes of the disk that stay free."""


def cached_int4_blocks(weight: Tensor) -> PackedInt4Blocks:
    """Return int4_blocks(weight), packed, from the cache folder if it has them; else store them there.

    A file that cannot be read is made again, and nothing is stored where the disk has no room.
    """
    if weight.numel() < _FEWEST_WEIGHTS:
        return int4_blocks(weight).packed()
    path = cache_folder() / INT4_WEIGHTS / f"{_key(weight)}{ENTRY}"
    stored = _read(path, weight)
    if stored is not None:
        return stored
    blocks = int4_blocks(weight).packed()
    _write(path, blocks)
    return blocks


def _key(weight: Tensor) -> str:
    digest = hashlib.sha256(f"int4 {SEARCH_VERSION} {list(weight.shape)} {weight.dtype} ".encode())
    digest.update(weight.contiguous().numpy().data)
    return digest.hexdigest()


def _read(path: Path, weight: Tensor) -> PackedInt4Blocks | None:
    rows, blocks = weight.shape[0], weight.shape[1] // BLOCK
    try:
        stored = PackedInt4Blocks(**load_file(path))
        shapes = [list(part.shape) for part in (stored.codes, stored.scales, stored.minima)]
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, TypeError) as error:
        _log.warning("%s cannot be read and is made again: %s", path, error)
        return None
    return stored if shapes == [[rows, blocks, BLOCK // 2], [rows, blocks], [rows, blocks]] else None


def _write(path: Path, blocks: PackedInt4Blocks) -> None:
    parts = {"codes": blocks.codes, "scales": blocks.scales, "minima": blocks.minima}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(path.parent).free < _LEFT_FREE + sum(part.nbytes for part in parts.values()):
            return
        handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=UNFINISHED)
        os.close(handle)
        try:
            save_file({name: part.contiguous() for name, part in parts.items()}, unfinished)
            os.replace(unfinished, path)
        except BaseException:
            Path(unfinished).unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:  # a cache that cannot be written is none
        _log.warning("Quantized weights are not kept in %s: %s", path.parent, error)
