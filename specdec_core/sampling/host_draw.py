"""Draws on the host in two steps: a block of the vocabulary by the blocks' sums, then an id in that block.

A sum over the whole vocabulary in float64 takes as long as a softmax. Arrays of numpy; never sees a model.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np


@lru_cache
def block_size(vocab: int) -> int:
    """Return the ids of a block, about the square root of `vocab`. The last block may have fewer."""
    return 1 << ((vocab - 1).bit_length() + 1) // 2


def block_sums(weights: np.ndarray) -> np.ndarray:
    """Return the sums of the blocks of weights [vocab]."""
    return np.add.reduceat(weights, _starts(len(weights)))


def draw_on_host(weights: np.ndarray, uniform: float, sums: np.ndarray | None = None) -> int:
    """Draw an id by the inverse CDF of weights [vocab], normalized or not, with a uniform in (0, 1).

    Equals `noise.draw` up to rounding. `sums` are those of the blocks, if they are known. An id of weight 0
    is never drawn, unless all are.
    """
    cdf = (block_sums(weights) if sums is None else sums).cumsum(dtype=np.float64)
    at = uniform * cdf[-1]
    block = _first_above(cdf, at)
    before = cdf[block - 1] if block else 0.0
    size = block_size(len(weights))
    start = block * size
    inner = weights[start : start + size].cumsum(dtype=np.float64)
    # By shares of the block: its sum above and its last entry here are rounded differently.
    share = (at - before) / (cdf[block] - before) if cdf[block] > before else 0.0
    return start + _first_above(inner, share * inner[-1])


def _first_above(cdf: np.ndarray, value: float) -> int:
    """The first index whose entry is above `value`; where rounding left none, the last with a weight."""
    index = int(cdf.searchsorted(value, side="right"))
    return index if index < len(cdf) else int(cdf.searchsorted(cdf[-1], side="left"))


@lru_cache
def _starts(vocab: int) -> np.ndarray:
    return np.arange(0, vocab, block_size(vocab))
