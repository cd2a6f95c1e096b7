"""Dequantization of GGUF tensors on the device that uses them, without the gguf package.

Reads the block formats Q4_1, Q8_0 and F32. Knows nothing of the model that the tensors belong to.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
"""Weights in a block of Q4_1 or Q8_0."""
BLOCK_BYTES = {"Q4_1": 20, "Q8_0": 34}


@dataclass(frozen=True)
class TensorEntry:
    """Place of a tensor in a GGUF file; `shape` is torch's, the fastest dimension last."""

    type: str
    shape: list[int]
    offset: int
    nbytes: int


@dataclass(frozen=True)
class GgufWeights:
    """Bytes of a whole GGUF file (uint8, on any device) and its table of tensors."""

    data: Tensor
    entries: dict[str, TensorEntry]

    def read(self, name: str) -> Tensor:
        """Return a tensor in float32, on the device of the bytes."""
        entry = self.entries[name]
        # The copy is aligned, which a view as float16 or float32 needs.
        raw = self.data[entry.offset : entry.offset + entry.nbytes].clone()
        return dequantize(raw, entry.type, entry.shape)


def dequantize(raw: Tensor, kind: str, shape: list[int]) -> Tensor:
    """Return the float32 tensor that the bytes `raw` (uint8) encode.

    Blocks run along the last dimension. Q8_0: a float16 scale, 32 int8 values. Q4_1: a float16 scale, a
    float16 minimum, 16 bytes whose low halves are values 0 to 15 and whose high halves are values 16 to 31.
    Format: ggml's `block_q4_1` and `block_q8_0` (ggml-common.h).
    """
    if kind == "F32":
        return raw.view(torch.float32).reshape(shape)
    if kind not in BLOCK_BYTES:
        raise ValueError(
            f"GGUF type {kind} is not supported: use a file with Q4_1, Q8_0 and F32 tensors only"
        )
    blocks = raw.reshape(-1, BLOCK_BYTES[kind])
    scale = _float16_at(blocks, 0)
    if kind == "Q8_0":
        return (blocks[:, 2:].contiguous().view(torch.int8).float() * scale).reshape(shape)
    levels = torch.cat([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], 1).float()
    return (levels * scale + _float16_at(blocks, 2)).reshape(shape)


def _float16_at(blocks: Tensor, offset: int) -> Tensor:
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()  # [blocks, 1]
