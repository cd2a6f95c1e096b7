"""Draws from a distribution, and the keyed noise that makes an answer repeatable.

Knows nothing of models or rounds. `draw` works on the device of its tensors without synchronizing; the other
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
"""Positions hashed ahead: between two forwards a single hash would run with cold caches."""


def draw(weights: Tensor, uniform: Tensor) -> Tensor:
    """Inverse-CDF draw: weights [vocab], not necessarily normalized, and uniform [1] in (0, 1) → id [1].

    Summed in float64, so that the tail of a large vocabulary keeps its mass; an entry of weight 0 is
    never drawn.
    """
    cdf = weights.cumsum(-1, dtype=torch.float64)
    index = torch.searchsorted(cdf, uniform * cdf[-1:], right=True)
    return index.clamp_(max=weights.shape[-1] - 1)


def draw_on_host(weights: Tensor, uniform: float) -> int:
    """`draw` for weights [vocab] or [1, vocab] in the host's memory, where the result is there at once."""
    cdf = weights.cumsum(-1, dtype=torch.float64).numpy().reshape(-1)
    return min(int(cdf.searchsorted(uniform * cdf[-1], side="right")), len(cdf) - 1)


@dataclass(frozen=True, slots=True)
class Uniforms:
    """For each position a number in (0, 1) of each stream; the streams are independent."""

    draft: list[float]
    accept: list[float]
    residual: list[float]


class KeyedNoise:
    """Randomness as a function of (seed, absolute position, purpose), so that no draw depends on which
    other draws were made. The hash is BLAKE2b on the host, and for the Gumbel rows a 32-bit mixer
    (MurmurHash3's finalizer) over token ids on the device.

    The three uniforms of a position are three parts of one digest: BLAKE2b keyed with the seed is a
    pseudorandom function, whose bits are as good as independent of each other, so that the part of the digest
    can be the purpose, at a third of the cost.
    """

    def __init__(self, seed: int | None, device: torch.device | str = "cpu") -> None:
        self.seed = secrets.randbits(32) if seed is None else seed
        self.device = torch.device(device)
        self._key = (self.seed & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
        self._ids: Tensor | None = None
        self._hashed = range(0)

    def uniforms(self, positions: range) -> Uniforms:
        """Three numbers for each of one or more positions, of 48 bits each."""
        first, end = positions.start, positions.stop
        if not self._hashed.start <= first < end <= self._hashed.stop:
            self._hashed = range(first, max(end, first + _HASHED_AT_ONCE))
            parts = [struct.unpack("<3Q", self._digest(p, b"uniforms", 24)) for p in self._hashed]
            self._streams = [
                [((part >> 16) + 0.5) / 2**48 for part in stream] for stream in zip(*parts, strict=True)
            ]
        asked = slice(first - self._hashed.start, end - self._hashed.start)
        return Uniforms(*(stream[asked] for stream in self._streams))

    def gumbel(self, positions: range, vocab: int) -> Tensor:
        """Standard Gumbel noise [positions, vocab], float32, indexed by position and token id."""
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
    x = x ^ (x >> 16)
    x = (x * 0x85EBCA6B) & _MASK32
    x = x ^ (x >> 13)
    x = (x * 0xC2B2AE35) & _MASK32
    return x ^ (x >> 16)
