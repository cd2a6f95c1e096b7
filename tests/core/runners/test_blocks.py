"""Blocks of 8 and 4 bits are near the weights, and are the same again for weights that came from such."""

import pytest
import torch

from specdec_core.runners.onnx.blocks import int4_blocks, int8_blocks


def _weight(rows: int = 48, columns: int = 128) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, columns, generator=generator) * torch.rand(rows, 1, generator=generator)


def test_8_bits_are_within_half_a_step():
    weight = _weight()
    blocks = int8_blocks(weight)
    error = (blocks.dequantized() - weight).abs().unflatten(1, (-1, 32))
    assert (error <= 0.5001 * blocks.scales[..., None]).all()


def test_8_bits_of_weights_that_had_8_bits_are_the_same():
    """GGUF's Q8_0: a float16 scale and 32 codes a block, of which one is 127 in size."""
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(-126, 127, (16, 4, 32), generator=generator)
    codes[..., 5] = torch.where(codes[..., 5] < 0, -127, 127)
    scales = torch.rand(16, 4, generator=generator).half().float()
    blocks = int8_blocks((codes * scales[..., None]).flatten(1))
    assert torch.equal(blocks.codes.int() - 128, codes.int())
    torch.testing.assert_close(blocks.scales, scales, atol=0, rtol=1e-6)


def test_4_bits_of_weights_that_had_4_bits_are_the_same():
    """GGUF's Q4_1: a float16 scale and a float16 minimum a block, with codes 0 and 15 in use."""
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 16, (16, 4, 32), generator=generator)
    codes[..., 3], codes[..., 9] = 0, 15
    scales = (torch.rand(16, 4, generator=generator) + 0.1).half().float()
    minima = torch.randn(16, 4, generator=generator).half().float()
    weight = (codes * scales[..., None] + minima[..., None]).flatten(1)
    blocks = int4_blocks(weight)
    assert torch.equal(blocks.codes.int(), codes.int())
    torch.testing.assert_close(blocks.dequantized(), weight, atol=1e-5, rtol=1e-5)


def test_4_bits_of_weights_on_a_coarser_grid_than_their_span_gives_are_the_same():
    """GGUF's Q4_0 and Q4_K: codes that need not reach from 0 to 15."""
    generator = torch.Generator().manual_seed(4)
    codes = torch.randint(2, 13, (16, 4, 32), generator=generator)
    scales = (torch.rand(16, 4, generator=generator) + 0.1).half().float()
    minima = torch.randn(16, 4, generator=generator).half().float()
    weight = (codes * scales[..., None] + minima[..., None]).flatten(1)
    blocks = int4_blocks(weight)
    assert torch.equal(blocks.codes.int(), codes.int() - codes.amin(-1, keepdim=True))
    torch.testing.assert_close(blocks.dequantized(), weight, atol=1e-5, rtol=1e-5)


def test_4_bits_that_are_fitted_have_a_smaller_error_than_the_span_s_own():
    weight = _weight()
    blocks = weight.unflatten(1, (-1, 32))
    low, span = blocks.amin(-1, keepdim=True), blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)
    plain = ((blocks - low) / span * 15).round() * span / 15 + low
    wanted = (plain - blocks).square().mean()
    assert (int4_blocks(weight).dequantized() - weight).square().mean() < 0.9 * wanted


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_a_constant_weight_is_kept(value):
    weight = torch.full((4, 64), value)
    torch.testing.assert_close(int8_blocks(weight).dequantized(), weight, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(int4_blocks(weight).dequantized(), weight, atol=1e-6, rtol=1e-6)


def test_4_bit_codes_are_packed_two_by_two():
    blocks = int4_blocks(_weight())
    packed = blocks.packed().codes
    assert torch.equal(packed & 15, blocks.codes[..., 0::2])
    assert torch.equal(packed >> 4, blocks.codes[..., 1::2])
