"""Weights in 8 and 4 bits by blocks of 32 of a row, as GGUF's Q8_0 and Q4_1 have them.

A weight that was dequantized from one of these formats gives its own codes again. Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 32
SEARCH_VERSION = 2
"""To be raised with any change of what int4_blocks returns: blocks are kept between loads."""
_FOUR_BITS = 15
_CANDIDATES = 8
_SPACING = 0.25
"""Scales that a block is tried with, from a coarser to a finer one than its span gives."""
_CHUNK = 2**18
"""Weights that are quantized at a time: their intermediate results stay in a CPU's caches."""
_EXACT = 1e-10
"""Squared error of a block in units of its squares, up to which it came from 4 bits and is not searched."""


@dataclass(frozen=True, slots=True)
class Int8Blocks:
    """codes uint8 [out, blocks, 32] with zero point 128, scales [out, blocks]: w = (codes − 128) · scale."""

    codes: Tensor
    scales: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight [out, in]."""
        return ((self.codes.float() - 128) * self.scales[..., None]).flatten(1)

    def first(self, rows: int) -> Int8Blocks:
        """Return the first rows, in the same memory."""
        return Int8Blocks(self.codes[:rows], self.scales[:rows])


@dataclass(frozen=True, slots=True)
class Int4Blocks:
    """codes uint8 [out, blocks, 32] from 0 to 15, scales and minima [out, blocks]: w = code · scale + min."""

    codes: Tensor
    scales: Tensor
    minima: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight [out, in]."""
        return (self.codes.float() * self.scales[..., None] + self.minima[..., None]).flatten(1)

    def packed(self) -> PackedInt4Blocks:
        """Return the same with two codes in a byte."""
        return PackedInt4Blocks(
            self.codes[..., 0::2] | (self.codes[..., 1::2] << 4), self.scales, self.minima
        )


@dataclass(frozen=True, slots=True)
class PackedInt4Blocks:
    """Int4Blocks with codes uint8 [out, blocks, 16], the even ones in the lower four bits."""

    codes: Tensor
    scales: Tensor
    minima: Tensor


def int8_blocks(weight: Tensor) -> Int8Blocks:
    """Quantize weight [out, in], `in` a multiple of 32, to the scales that its largest values give."""
    blocks = weight.unflatten(1, (-1, BLOCK))
    scales = blocks.abs().amax(-1) / 127
    codes = _divided(blocks, scales[..., None]).round_() + 128
    return Int8Blocks(codes.to(torch.uint8), scales)


def int4_blocks(weight: Tensor) -> Int4Blocks:
    """Quantize weight [out, in], `in` a multiple of 32, with a small squared error in each block."""
    shape = (weight.shape[0], -1)
    # A block a column: sums over columns are sums of vectors.
    parts = [_quantized(part.t().contiguous()) for part in weight.reshape(-1, BLOCK).split(_CHUNK // BLOCK)]
    codes, scales, minima = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    return Int4Blocks(codes.t().reshape(*shape, BLOCK), scales.view(shape), minima.view(shape))


def _quantized(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """blocks [32, n] → codes uint8 [32, n], scales and minima [n].

    Begin with the scale that the smallest and the largest value give, and with finer ones, which clip; fit
    scale and minimum to the codes by least squares; keep the best for each block. llama.cpp's search
    (make_qkx2_quants) does the same. Values on a coarser grid, as of Q4_0 and Q4_K, keep theirs.
    """
    low, high = blocks.amin(0), blocks.amax(0)
    width = high - low
    scale, start = width / _FOUR_BITS, low
    codes = _codes(blocks, scale, start)
    best = [_squared_error(blocks, codes, scale, start), scale, start]
    exact = _EXACT * blocks.square().sum(0)
    if (best[0] > exact).any():
        scale = width / _steps(blocks, width)
        error = _squared_error(blocks, _codes(blocks, scale, start), scale, start)
        best = [torch.where(error <= exact, new, old) for new, old in zip((error, scale), best, strict=False)]
        best.append(start)
    searched = bool((best[0] > exact).any())
    for at in range(_CANDIDATES if searched else 0):
        scale, start = width / (_FOUR_BITS - 1.0 + _SPACING * at), low
        codes = _codes(blocks, scale, start)
        for _ in range(2):
            scale, start = _least_squares(blocks, codes, scale, start)
            codes = _codes(blocks, scale, start)
            found = [_squared_error(blocks, codes, scale, start), scale, start]
            better = found[0] < best[0]
            best = [torch.where(better, new, old) for new, old in zip(found, best, strict=True)]
    _, scale, start = best
    return _codes(blocks, scale, start).to(torch.uint8), scale, start


def _steps(blocks: Tensor, width: Tensor) -> Tensor:
    """The smallest distance in a block that 4 bits can tell apart, as the number of times it is in the
    width [n].
    """
    apart = blocks.sort(0).values.diff(dim=0)
    apart = torch.where(apart > width / (2 * _FOUR_BITS), apart, torch.inf).amin(0)
    return (width / apart).round_().clamp_(1, _FOUR_BITS)


def _codes(blocks: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    inverse = torch.where(scale == 0, 0.0, 1 / scale)
    return blocks.sub(low).mul_(inverse).round_().clamp_(0, _FOUR_BITS)


def _squared_error(blocks: Tensor, codes: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    return (codes * scale).add_(low).sub_(blocks).square_().sum(0)


def _least_squares(blocks: Tensor, codes: Tensor, scale: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
    """The scale and the minimum that fit best to the codes; these ones where all codes are equal."""
    mean_code, mean = codes.mean(0), blocks.mean(0)
    spread = codes.square().mean(0) - mean_code.square()
    slope = ((codes * blocks).mean(0) - mean_code * mean) / spread
    fitted = (spread > 0) & (slope > 0)
    slope = torch.where(fitted, slope, scale)
    return slope, torch.where(fitted, mean - slope * mean_code, low)


def _divided(values: Tensor, scale: Tensor) -> Tensor:
    """values / scale, and 0 where the scale is 0."""
    return torch.where(scale == 0, 0.0, values / scale)
