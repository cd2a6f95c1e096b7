"""Draws from a distribution, and keyed noise that makes an answer reproducible.

Knows nothing of models or rounds. `draw` runs on the device of its tensors without synchronizing; the other
functions may synchronize.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF
_HASHED_AT_ONCE = 16
"""Positions hashed at a time: single hashes between forwards would each run with cold CPU caches."""


def draw(weights: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw an index [1] by the inverse CDF of weights [n], normalized or not, with uniform [1] in (0, 1).

    The sum is in float64, so that the tail of a large vocabulary keeps its mass. Entries of weight 0 are
    never drawn. Returns the index and the sum, float64 without dimensions.
    """
    cdf = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cdf, uniform * cdf[-1:], right=True)
    return index.clamp_(max=weights.shape[-1] - 1), cdf[-1]


@dataclass(frozen=True, slots=True)
class Uniforms:
    """Uniform numbers in (0, 1) for a range of positions, in three independent streams."""

    draft: list[float]
    accept: list[float]
    residual: list[float]


class KeyedNoise:
    """Randomness as a function of (seed, absolute position, purpose): no draw depends on earlier draws.

    The hash is BLAKE2b on the host; for Gumbel rows its digest keys a 32-bit mixer (MurmurHash3's finalizer)
    over token ids on the device. The three uniforms of a position are three parts of one digest, at a third
    of the cost of three: BLAKE2b keyed with the seed is a pseudorandom function, so its output bits can be
    treated as independent.
    """

    def __init__(self, seed: int | None, device: torch.device | str = "cpu") -> None:
        self.seed = secrets.randbits(32) if seed is None else seed
        self.device = torch.device(device)
        self._key = (self.seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        self._ids: Tensor | None = None
        self._hashed = range(0)

    def uniforms(self, positions: range) -> Uniforms:
        """Return three uniforms of 48 bits for each of one or more positions."""
        first, end = positions.start, positions.stop
        if not self._hashed.start <= first < end <= self._hashed.stop:
            self._hashed = range(first, max(end, first + _HASHED_AT_ONCE))
            parts = [struct.unpack("<3Q", self._digest(p, b"uniforms", 24)) for p in self._hashed]
            self._streams = [
                [((part >> 16) + 0.5) / 2**48 for part in stream] for stream in zip(*parts, strict=True)
            ]
        window = slice(first - self._hashed.start, end - self._hashed.start)
        return Uniforms(*(stream[window] for stream in self._streams))

    def gumbel(self, positions: range, vocab: int) -> Tensor:
        """Return standard Gumbel noise [positions, vocab], float32, keyed by seed, position and token id."""
        if self._ids is None or self._ids.shape[0] != vocab:
            self._ids = torch.arange(vocab, device=self.device)
        keys = [struct.unpack("<Q", self._digest(p, b"gumbel", 8))[0] for p in positions]
        low = torch.tensor([[key & _MASK32] for key in keys]).to(self.device, non_blocking=True)
        high = torch.tensor([[key >> 32] for key in keys]).to(self.device, non_blocking=True)
        bits = _mix32((_mix32(self._ids ^ low) + high) & _MASK32)
        uniform = (bits.double() + 0.5) / 2**32
        return -(-uniform.log()).log().float()

    def _digest(self, position: int, purpose: bytes, size: int) -> bytes:
        data = position.to_bytes(8, "little") + purpose
        return hashlib.blake2b(data, digest_size=size, key=self._key).digest()


def _mix32(x: Tensor) -> Tensor:
    """MurmurHash3's 32-bit finalizer, on int64 in [0, 2^32)."""
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK32
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK32
    return x ^ (x >> 16)
