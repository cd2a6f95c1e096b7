"""Dequantization against the formats' definitions, block by block in plain Python."""

import struct

import numpy as np
import pytest
import torch

from tests.training.smollm2.tiny_inputs import SHAPE, gguf_weights
from training.smollm2.gguf_weights import GgufWeights, dequantize


def _bytes(*parts: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(parts), np.uint8).copy())


def test_q4_1_is_level_times_scale_plus_minimum():
    packed = [bytes((7 * i + 3 * block) % 256 for i in range(16)) for block in range(4)]
    pairs = [(0.5, -1.0), (0.125, 2.0), (-0.25, 0.0), (1.0, -8.0)]
    raw = _bytes(*(struct.pack("<ee", *pair) + levels for pair, levels in zip(pairs, packed, strict=True)))
    expected = []
    for (scale, minimum), levels in zip(pairs, packed, strict=True):
        expected += [(byte & 0x0F) * scale + minimum for byte in levels]
        expected += [(byte >> 4) * scale + minimum for byte in levels]
    assert dequantize(raw, "Q4_1", [2, 64]).tolist() == np.reshape(expected, (2, 64)).tolist()


def test_q8_0_is_value_times_scale():
    values = [[(11 * i + 90 * block) % 255 - 127 for i in range(32)] for block in range(2)]
    scales = [0.25, -0.5]
    raw = _bytes(*(struct.pack("<e32b", scale, *block) for scale, block in zip(scales, values, strict=True)))
    expected = [[value * scale for value in block] for scale, block in zip(scales, values, strict=True)]
    assert dequantize(raw, "Q8_0", [2, 32]).tolist() == expected


def test_f32_is_read_as_it_is():
    raw = _bytes(struct.pack("<4f", 1.5, -2.0, 0.0, 1e-3))
    assert dequantize(raw, "F32", [4]).tolist() == pytest.approx([1.5, -2.0, 0.0, 1e-3])


def test_another_type_is_refused_by_name():
    with pytest.raises(ValueError, match="Q4_K is not supported"):
        dequantize(torch.zeros(144, dtype=torch.uint8), "Q4_K", [256])


def test_a_tensor_is_read_from_any_offset():
    data, entries = gguf_weights()
    weights = GgufWeights(_bytes(data), entries)
    assert weights.read("blk.1.ffn_down.weight").shape == (SHAPE.hidden, SHAPE.ffn)
    assert entries["blk.1.ffn_down.weight"].offset % 4
