"""Storage of a drafter: int8 rows in safetensors files below a size limit.

A matrix `NAME` is int8, with one float16 scale a row in `NAME.scale`; vectors are float32; `head_ids` is
int32. Knows nothing of the layers.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

HEAD_IDS = "head_ids"
HEADER_BYTES = 160
"""Upper bound of a tensor's entry in a file's header."""


def int8_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values and float16 scales `[rows, 1]`, symmetric within each row of `matrix`."""
    scale = (matrix.abs().amax(1, keepdim=True) / 127).clamp_min(1e-7).half()
    return (matrix / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def quantize(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as they are stored."""
    stored = {}
    for name, tensor in tensors.items():
        if name == HEAD_IDS:
            stored[name] = tensor.int()
        elif tensor.dim() == 1:
            stored[name] = tensor.float()
        else:
            stored[name], stored[f"{name}.scale"] = int8_rows(tensor)
    return stored


def dequantize(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return stored tensors in float32, scales applied, and `head_ids` as int64."""
    tensors = {}
    for name, tensor in stored.items():
        if name == HEAD_IDS:
            tensors[name] = tensor.long()
        elif tensor.dtype == torch.int8:
            tensors[name] = tensor.float() * stored[f"{name}.scale"].float()
        elif not name.endswith(".scale"):
            tensors[name] = tensor
    return tensors


def write_shards(
    folder: Path, stored: dict[str, Tensor], limit_bytes: int, metadata: dict[str, str]
) -> list[Path]:
    """Write stored tensors, in their order, as files `drafter-0000i-of-0000n.safetensors`.

    Each file is below `limit_bytes`; ValueError where one tensor alone is not.
    """
    files: list[dict[str, Tensor]] = [{}]
    room = start_room = (
        limit_bytes - HEADER_BYTES - sum(len(key + value) + 8 for key, value in metadata.items())
    )
    for name, tensor in stored.items():
        size = tensor.nbytes + HEADER_BYTES
        if size > start_room:
            raise ValueError(f"{name} has {tensor.nbytes:,} bytes: a file of {limit_bytes:,} cannot hold it")
        if size > room:
            files.append({})
            room = start_room
        files[-1][name] = tensor.cpu().contiguous()
        room -= size
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("drafter-*.safetensors"):
        stale.unlink()
    paths = []
    for number, tensors in enumerate(files, 1):
        path = folder / f"drafter-{number:05}-of-{len(files):05}.safetensors"
        save_file(tensors, path, metadata)
        paths.append(path)
    return paths


def read_shards(folder: Path) -> dict[str, Tensor]:
    """Return the stored tensors of all files; ValueError where one is missing."""
    paths = sorted(folder.glob("drafter-*.safetensors"))
    expected = int(paths[0].stem.rsplit("-", 1)[1]) if paths else 1
    if len(paths) != expected:
        raise ValueError(f"{folder} has {len(paths)} of {expected} files of a drafter: copy all of them")
    return {name: tensor for path in paths for name, tensor in load_file(path).items()}
