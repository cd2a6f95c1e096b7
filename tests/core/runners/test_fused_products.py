"""Products with bitsandbytes' weights through the kernel, and the modules that share these weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from specdec_core.runners.fused_products import KernelProduct, TorchProduct, fused_product, split_size
from tests.support.triton_kernels import dequantized_weight, evens_first, int8_linear, nf4_linear

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.usefixtures("interpreter")

SPLIT_K = 1088  # 17 blocks: three splits, of which the last is the shortest


def linear(n: int, k: int = 128, bias: bool = False) -> torch.nn.Linear:
    return torch.nn.Linear(k, n, bias=bias)


def side_by_side(modules: list[torch.nn.Module]):
    return lambda x: torch.cat([module(x) for module in modules], -1)


def fused(modules: list[torch.nn.Module]):
    return fused_product(modules, side_by_side(modules))


def computed(product: KernelProduct, x: Tensor) -> Tensor:
    """The sum of the partial results, with x in the order of elements that the product wants."""
    return product(evens_first(x).contiguous() if product.halves else x).sum(0)


QUANTIZED = {
    "nf4": nf4_linear,
    "nf4, plain scales": lambda layer: nf4_linear(layer, nested=False),
    "int8": int8_linear,
}


@pytest.mark.parametrize("quantized", QUANTIZED.values(), ids=QUANTIZED)
@pytest.mark.parametrize(
    ("widths", "k", "splits"),
    [((60, 8, 9), 128, 1), ((40,), 64, 1), ((64,), SPLIT_K, 3), ((100, 28), SPLIT_K, 2)],
    ids=["a last block of 13", "one block of k", "three splits", "two splits"],
)
def test_joined_modules_are_one_product(quantized, widths, k, splits):
    modules = [quantized(linear(n, k)) for n in widths]
    weight = torch.cat([dequantized_weight(module) for module in modules])
    product = fused(modules)
    assert isinstance(product, KernelProduct)
    x = torch.randn(5, k)
    assert product(x).shape == (splits, 5, sum(widths))
    torch.testing.assert_close(computed(product, x), x @ weight.T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("quantized", QUANTIZED.values(), ids=QUANTIZED)
def test_half_precision_is_summed_in_float32(quantized):
    module = quantized(linear(40, SPLIT_K).half())
    weight = dequantized_weight(module)
    x = (100 * torch.randn(2, SPLIT_K)).half()
    parts = fused([module])(evens_first(x) if quantized is not int8_linear else x)
    assert parts.dtype == torch.float32
    wanted = x.float() @ weight.T
    torch.testing.assert_close(parts.sum(0), wanted, atol=2e-3 * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize("quantized", QUANTIZED.values(), ids=QUANTIZED)
def test_a_row_comes_out_alike_whatever_the_rows_beside_it(quantized):
    product = fused([quantized(linear(70, SPLIT_K))])
    x = torch.randn(17, SPLIT_K)
    alone = product(x[3:4])
    assert torch.equal(product(x[:5])[:, 3:4], alone)
    assert torch.equal(product(x[:16])[:, 3:4], alone)
    torch.testing.assert_close(product(x)[:, 3:4], alone)


@pytest.mark.parametrize("nested", [True, False])
def test_joined_nf4_modules_compute_what_they_did(nested):
    modules = [nf4_linear(linear(n, bias=True), nested=nested) for n in (60, 8, 9)]
    x = torch.randn(5, 128)
    wanted = [copy.deepcopy(module)(x) for module in modules]
    fused(modules)
    for module, before in zip(modules, wanted, strict=True):
        assert torch.equal(module(x), before)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_joined_int8_modules_keep_the_precision_of_activations(biased, dtype):
    modules = [int8_linear(linear(n, bias=biased).to(dtype)) for n in (60, 8)]
    weights = [dequantized_weight(module) for module in modules]
    x = torch.randn(1, 5, 128).to(dtype)
    fused(modules)
    for module, weight in zip(modules, weights, strict=True):
        got = module(x)
        wanted = x.float() @ weight.T + (module.bias.float() if biased else 0)
        assert got.dtype == dtype
        steps = 4 * torch.finfo(dtype).eps * wanted.abs().max().item()
        torch.testing.assert_close(got.float(), wanted, atol=max(steps, 1e-5), rtol=0)


def test_int8_modules_exceed_float16_only_with_their_results():
    module = int8_linear(linear(8, 1024).half())
    fused([module])
    x = torch.full((2, 1024), 2000.0).half() * dequantized_weight(module)[0].sign().half()
    wanted = x.float() @ dequantized_weight(module).T
    assert 2**14 < wanted.abs().max() < torch.finfo(torch.float16).max
    torch.testing.assert_close(module(x).float(), wanted, atol=2e-3 * wanted.abs().max().item(), rtol=0)


@pytest.mark.parametrize("quantized", QUANTIZED.values(), ids=QUANTIZED)
def test_the_modules_weights_lie_in_the_product_s(quantized):
    modules = [quantized(linear(n)) for n in (60, 8)]
    product = fused(modules)
    assert modules[0].weight.data_ptr() == product.weight.data_ptr()
    assert modules[1].weight.data_ptr() == product.weight[60:].data_ptr()
    assert product.weight.untyped_storage().nbytes() == product.weight.nbytes


def test_the_scales_of_nf4_are_kept_once_and_take_more_than_nested_ones():
    module = nf4_linear(linear(128, 256))
    state = module.weight.quant_state
    nested = state.absmax.nbytes + state.state2.absmax.nbytes
    product = fused([module])
    state = module.weight.quant_state
    assert state.absmax.data_ptr() == product.scales.data_ptr()
    assert (state.nested, state.state2, state.offset) == (False, None, None)
    assert 8 * (state.absmax.nbytes - nested) / (128 * 256) == pytest.approx(0.37, abs=0.01)


def test_int8_weights_that_a_forward_has_moved_are_taken_from_the_state():
    module = int8_linear(linear(40))
    weight = dequantized_weight(module)
    x = torch.randn(2, 128)
    module(x)
    assert module.weight.CB is None
    product = fused([module])
    torch.testing.assert_close(computed(product, x), x @ weight.T)
    torch.testing.assert_close(module(x), x @ weight.T)
    assert module.state.CB.data_ptr() == product.weight.data_ptr()


def test_the_bias_of_all_modules_is_left_to_the_caller():
    modules = [nf4_linear(linear(n, bias=True)) for n in (60, 8)]
    product = fused(modules)
    assert isinstance(product, KernelProduct)
    assert torch.equal(product.bias, torch.cat([module.bias for module in modules]))


UNSUPPORTED = {
    "four bits of another kind": lambda: [nf4_linear(linear(40), quant_type="fp4")],
    "longer blocks": lambda: [nf4_linear(linear(40), blocksize=128)],
    "columns that are no blocks": lambda: [nf4_linear(linear(40, 96))],
    "outlier columns": lambda: [int8_linear(linear(40), threshold=6.0)],
    "some of them biased": lambda: [nf4_linear(linear(40, bias=True)), nf4_linear(linear(8))],
    "some of them biased, int8": lambda: [int8_linear(linear(40, bias=True)), int8_linear(linear(8))],
    "some of them quantized": lambda: [nf4_linear(linear(40)), linear(8)],
    "two quantizations": lambda: [nf4_linear(linear(40)), int8_linear(linear(8))],
    "none of them quantized": lambda: [linear(40), linear(8, bias=True)],
}


@pytest.mark.parametrize("made", UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_other_modules_compute_their_product_and_stay_as_they_are(made):
    modules = made()
    x = torch.randn(3, 128 if modules[0].in_features == 128 else 96)
    wanted = torch.cat([copy.deepcopy(module)(x) for module in modules], -1)
    places = [module.weight.data_ptr() for module in modules]
    product = fused(modules)
    assert isinstance(product, TorchProduct)
    assert [module.weight.data_ptr() for module in modules] == places
    assert torch.equal(product(x)[0], wanted)
    assert product(x).shape == (1, *wanted.shape)
    assert (product.halves, product.bias) == (False, None)


@pytest.mark.parametrize("processors", [1, 24, 132])
@pytest.mark.parametrize("n", [64, 1024, 6144, 28672])
@pytest.mark.parametrize("k", [64, 576, 4096, 8960, 14336])
def test_splits_cover_k_in_whole_blocks(processors, n, k, monkeypatch):
    monkeypatch.setattr("specdec_core.runners.fused_products.processors", lambda device: processors)
    size = split_size(n, k, torch.device("cpu"))
    splits = -(-k // size)
    assert size % 128 == 0
    assert 1 <= splits <= 8
    assert (splits - 1) * size < k <= splits * size
