"""Weights in 8 and 4 bits by blocks of 32 of a row, as GGUF's Q8_0 and Q4_1 have them.

A weight that was dequantized from one of these formats gives its own codes again. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
_FOUR_BITS = 15
_REFINEMENTS = 20
_CHUNK_ROWS = 2048
"""Rows that are quantized at a time, which bounds the memory of the intermediate results."""


@dataclass(frozen=True, slots=True)
class Int8Blocks:
    """codes uint8 [out, blocks, 32] with zero point 128, scales [out, blocks]: w = (codes − 128) · scale."""

    codes: Tensor
    scales: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight [out, in]."""
        return ((self.codes.float() - 128) * self.scales[..., None]).flatten(1)


@dataclass(frozen=True, slots=True)
class Int4Blocks:
    """codes uint8 [out, blocks, 32] from 0 to 15, scales and minima [out, blocks]: w = code · scale + min."""

    codes: Tensor
    scales: Tensor
    minima: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight [out, in]."""
        return (self.codes.float() * self.scales[..., None] + self.minima[..., None]).flatten(1)

    def packed(self) -> Tensor:
        """Return the codes uint8 [out, blocks, 16], the even ones in the lower four bits."""
        return self.codes[..., 0::2] | (self.codes[..., 1::2] << 4)


def int8_blocks(weight: Tensor) -> Int8Blocks:
    """Quantize weight [out, in], `in` a multiple of 32, to the scales that its largest values give."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1) / 127
    codes = _divided(blocks, scales[..., None]).round_() + 128
    return Int8Blocks(codes.to(torch.uint8), scales)


def int4_blocks(weight: Tensor) -> Int4Blocks:
    """Quantize weight [out, in], `in` a multiple of 32, with a small squared error in each block."""
    parts = [_int4_rows(rows.unflatten(1, (-1, BLOCK))) for rows in weight.split(_CHUNK_ROWS)]
    codes, scales, minima = (torch.cat(part) for part in zip(*parts, strict=True))
    return Int4Blocks(codes, scales, minima)


def _int4_rows(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Begin with the scale that the smallest and the largest value give, and with finer ones, which clip;
    fit scale and minimum to the codes by least squares; keep the best for each block.
    """
    low, high = blocks.amin(-1), blocks.amax(-1)
    width = high - low
    best_scale, best_low = width / _FOUR_BITS, low
    best_error = _squared_error(blocks, best_scale, best_low)
    for at in range(_REFINEMENTS):
        # From coarser to finer than the span needs, as llama.cpp's search does (make_qkx2_quants).
        scale, start = width / (_FOUR_BITS - 1.0 + 0.1 * at), low
        for _ in range(2):
            scale, start = _least_squares(blocks, scale, start)
            error = _squared_error(blocks, scale, start)
            better = error < best_error
            best_scale = torch.where(better, scale, best_scale)
            best_low = torch.where(better, start, best_low)
            best_error = torch.where(better, error, best_error)
    return _codes(blocks, best_scale, best_low).to(torch.uint8), best_scale, best_low


def _codes(blocks: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    return _divided(blocks - low[..., None], scale[..., None]).round_().clamp_(0, _FOUR_BITS)


def _squared_error(blocks: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    restored = _codes(blocks, scale, low) * scale[..., None] + low[..., None]
    return (restored - blocks).square_().sum(-1)


def _least_squares(blocks: Tensor, scale: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the minimum that fit best to the codes which these give."""
    codes = _codes(blocks, scale, low)
    mean_code, mean = codes.mean(-1), blocks.mean(-1)
    spread = codes.square().mean(-1) - mean_code.square()
    slope = ((codes * blocks).mean(-1) - mean_code * mean) / spread
    fitted = (spread > 0) & (slope > 0)
    slope = torch.where(fitted, slope, scale)
    return slope, torch.where(fitted, mean - slope * mean_code, low)


def _divided(values: Tensor, scale: Tensor) -> Tensor:
    """values / scale, and 0 where the scale is 0."""
    return torch.where(scale == 0, 0.0, values / scale)
