"""Products with a weight in the formats that ONNX Runtime's CPU kernels take.

In 8 and 4 bits the kernel rounds the activations to 8 bits in blocks of 32. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ...onnx_runtime.builder import CONTRIB, GraphBuilder
from ..base import Format
from .block_cache import cached_int4_blocks
from .blocks import BLOCK, Int8Blocks, int8_blocks

Product = Callable[[GraphBuilder, str, str, Tensor], str]
"""(graph, name, x, weight [out, in]) → `name`, that of x @ weight.T [1, rows, out]."""

_ROUND_ACTIVATIONS = 4
"""Accuracy level of MatMulNBits at which activations have 8 bits, for which it has its fast kernels."""


def linear(
    graph: GraphBuilder, product: Product, name: str, x: str, weight: Tensor, bias: Tensor | None
) -> str:
    """Add the nodes of a linear layer; return `name`, that of x @ weight.T + bias [1, rows, out]."""
    if bias is None:
        return product(graph, name, x, weight)
    out = product(graph, f"{name}.unbiased", x, weight)
    return graph.node("Add", [out, graph.weight(f"{name}.bias", bias)], name)


def float32_product(graph: GraphBuilder, name: str, x: str, weight: Tensor) -> str:
    """See Product."""
    constant = graph.weight(f"{name}.weight", weight)
    return graph.node("FusedMatMul", [x, constant], name, domain=CONTRIB, transB=1)


def int8_product(graph: GraphBuilder, name: str, x: str, weight: Tensor) -> str:
    """See Product. The weight is in blocks of 8 bits, in float32 if they do not divide it."""
    if weight.shape[1] % BLOCK:
        return float32_product(graph, name, x, weight)
    return int8_block_product(graph, name, x, int8_blocks(weight))


def int8_block_product(graph: GraphBuilder, name: str, x: str, blocks: Int8Blocks) -> str:
    """See Product, with a weight that is in blocks already."""
    codes = graph.weight(f"{name}.codes", blocks.codes)
    scales = graph.weight(f"{name}.scales", blocks.scales)
    columns = blocks.codes.shape[1] * BLOCK
    return _block_product(graph, name, [x, codes, scales], columns, blocks.codes.shape[0], bits=8)


def int4_product(graph: GraphBuilder, name: str, x: str, weight: Tensor) -> str:
    """See Product. The weight is in blocks of 4 bits with a minimum, in float32 if they do not divide it.

    The fast kernel has no minima: w = (code − 8) · scale + (minimum + 8 · scale), and the second part, one
    number a block, is multiplied by the sum of the activations of that block.
    """
    if weight.shape[1] % BLOCK:
        return float32_product(graph, name, x, weight)
    blocks = cached_int4_blocks(weight)
    codes = graph.weight(f"{name}.codes", blocks.codes)
    scales = graph.weight(f"{name}.scales", blocks.scales)
    offsets = graph.weight(f"{name}.offsets", blocks.minima + 8 * blocks.scales)
    around_zero = _block_product(
        graph, f"{name}.around_zero", [x, codes, scales], *weight.shape[::-1], bits=4
    )
    sums = _block_sums(graph, x, weight.shape[1])
    offset = graph.node("FusedMatMul", [sums, offsets], f"{name}.offset", domain=CONTRIB, transB=1)
    return graph.node("Add", [around_zero, offset], name)


def _block_product(
    graph: GraphBuilder, name: str, inputs: list[str], columns: int, rows: int, bits: int
) -> str:
    return graph.node(
        "MatMulNBits",
        inputs,
        name,
        domain=CONTRIB,
        K=columns,
        N=rows,
        bits=bits,
        block_size=BLOCK,
        accuracy_level=_ROUND_ACTIVATIONS,
    )


def _block_sums(graph: GraphBuilder, x: str, columns: int) -> str:
    """The sums [1, rows, blocks] over the blocks of x [1, rows, columns]; one node for all products of x."""
    name = f"{x}.block_sums"
    if not graph.has(name):
        shape = graph.constant(f"blocks_{columns}", [0, 0, columns // BLOCK, BLOCK], np.int64)
        last = graph.constant("last_axis", [-1], np.int64)
        apart = graph.node("Reshape", [x, shape], f"{x}.blocks")
        graph.node("ReduceSum", [apart, last], name, keepdims=0)
    return name


PRODUCTS: dict[Format, Product] = {
    "float32": float32_product,
    "int8": int8_product,
    "int4": int4_product,
}
HEAD_PRODUCTS: dict[Format, Product] = {
    "float32": float32_product,
    "int8": int8_product,
    "int4": int8_product,  # the logits suffer most from 4 bits, and GGUF keeps 8 for them too
}
