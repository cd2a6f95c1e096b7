"""Logits → probabilities → token, and the keyed noise that makes an answer repeatable.

Knows nothing of models or rounds. `draw` works on the device of the tensors it is given and never waits
for it; the other functions may.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from dataclasses import dataclass

import torch
from torch import Tensor

from .settings import Settings

_MASK32 = 0xFFFFFFFF
_NUCLEUS_FIRST = 256
_HASHED_AT_ONCE = 16
"""Positions: between two forwards a hash alone finds its code in none of the processor's caches."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The part of the settings that shapes a distribution."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    @classmethod
    def from_settings(cls, settings: Settings) -> SamplingParams:
        return cls(float(settings.temperature), settings.top_k, float(settings.top_p), float(settings.min_p))

    @property
    def greedy(self) -> bool:
        # Below this float32 cannot tell the best logit from infinitely better than the rest.
        return self.temperature < 1e-6


def filtered_logits(logits: Tensor, params: SamplingParams) -> Tensor:
    """Temperature → top-k → top-p → min-p on logits [rows, vocab], in float32; filtered entries are -inf.

    `params.temperature` must be above 0. The most probable token always survives. top-p keeps the
    smallest set whose mass reaches p (Holtzman et al. 2020); min-p keeps what has at least min_p times
    the probability of the best (Nguyen et al. 2024), both measured on what the filters before them left.
    """
    logits = logits.float() * (1 / params.temperature)
    if 0 < params.top_k < logits.shape[-1]:
        threshold = logits.topk(params.top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if params.top_p < 1:
        logits = logits.masked_fill(~_nucleus(logits, params.top_p), -torch.inf)
    if params.min_p > 0:
        probs = logits.softmax(-1)
        logits = logits.masked_fill(probs < params.min_p * probs.amax(-1, keepdim=True), -torch.inf)
    return logits


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """The smallest set of tokens whose mass reaches top_p [rows, vocab]; of equals, the first ones.

    Sorting a whole vocabulary takes longer than a small model's forward, and a nucleus is seldom large: the
    best few hundred are ordered first, and all only where their mass does not reach it.
    """
    vocab, total = logits.shape[-1], logits.logsumexp(-1, keepdim=True)
    for size in (min(_NUCLEUS_FIRST, vocab), vocab):
        best = logits.topk(size, dim=-1).values
        probs = (best - total).exp()
        mass = probs.cumsum(-1)
        if size == vocab or bool((mass[..., -1] >= top_p).all()):
            break
    # Each is kept whose better ones have not reached it yet; the best has none.
    kept = (mass - probs < top_p).sum(-1, keepdim=True).clamp(min=1)
    threshold = best.gather(-1, kept - 1)
    better, equal = logits > threshold, logits == threshold
    return better | (equal & (equal.cumsum(-1) <= kept - better.sum(-1, keepdim=True)))


def probabilities(logits: Tensor, params: SamplingParams) -> Tensor:
    """The distribution [rows, vocab], float32, that a token is drawn from; one-hot at temperature 0."""
    if params.greedy:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
    return filtered_logits(logits, params).softmax(-1)


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
