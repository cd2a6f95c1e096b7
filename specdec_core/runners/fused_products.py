"""The products of the fused forward: quantized weights through our own kernel, others through torch.

The weights of one product (query, key and value; gate and up) lie behind each other, and the modules' own
become views of them, so that memory is not doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from .fused_kernels import kernels_for
from .lean_forward import UnsupportedError
from .nf4_lookup import lookup_in_registers

_BLOCK_N = 64
_PROGRAMS_A_PROCESSOR = 3
"""Programs of one product for each multiprocessor. Fewer do not hide the latency of memory."""
_INT8_LEVELS = 127.0
_LOOKUP_DTYPES = (torch.bfloat16, torch.float16)


class Product(Protocol):
    """x [rows, k] → partial results [splits, rows, n], to be added in float32."""

    @property
    def halves(self) -> bool:
        """True if x has its even elements first and its odd ones behind."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """A bias [n] that the result lacks."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the partial results."""
        ...


class TorchProduct:
    """A product by a function x → [rows, n]."""

    halves = False
    bias = None

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        return self._function(x).contiguous()[None]


class KernelProduct:
    """A product with NF4 or int8 weights as bitsandbytes has them, through `kernels.product`.

    Its time hardly depends on the number of rows, where that of bitsandbytes' kernels grows with each.
    """

    def __init__(
        self, weight: Tensor, scales: Tensor, code: Tensor | None, bias: Tensor | None, k: int
    ) -> None:
        self._kernels = kernels_for(weight.device)
        self.weight = weight  # [n, k] int8, or [n, k / 2] uint8
        self.scales = scales  # [n], or [n, k / 64]
        self.code = code  # 16 values
        self.bias = bias
        self.k = k
        self.n = weight.shape[0]
        self.halves = code is not None
        self._lookups = _lookups(code)
        self._split_size = split_size(self.n, k, weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        """See Product."""
        rows = x.shape[0]
        splits = -(-self.k // self._split_size)
        parts = x.new_empty(splits, rows, self.n, dtype=torch.float32)
        self._kernels.product[(-(-self.n // _BLOCK_N), splits)](
            x,
            self.weight,
            self.scales,
            self.scales if self.code is None else self.code,
            parts,
            rows,
            self.n,
            self.k,
            self._split_size,
            FORMAT=self._kernels.INT8 if self.code is None else self._kernels.NF4,
            LOOKUP=self._lookups.get(x.dtype, ""),
            BLOCK_M=16 if rows <= 16 else 32,
            BLOCK_N=_BLOCK_N,
            BLOCK_K=128,
            num_warps=4,
            num_stages=4,
        )
        return parts


def split_size(n: int, k: int, device: torch.device) -> int:
    """Return the length of the parts of k that one program sums: shorter ones where n gives few programs."""
    wanted = _PROGRAMS_A_PROCESSOR * processors(device)
    splits = 1
    while splits < 8 and splits * -(-n // _BLOCK_N) < wanted and k // (2 * splits) >= 256:
        splits *= 2
    return -(-k // splits // 128) * 128


@cache
def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; 1 for a CPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def fused_product(modules: Sequence[torch.nn.Module], function: Callable[[Tensor], Tensor]) -> Product:
    """Return the product of the joined modules; `function` computes it where our kernel does not."""
    kinds = {type(module).__name__ for module in modules}
    try:
        if kinds == {"Linear4bit"}:
            return _nf4_product(modules)
        if kinds == {"Linear8bitLt"}:
            return _int8_product(modules)
    except UnsupportedError:
        pass
    return TorchProduct(function)


def _nf4_product(modules: Sequence[Any]) -> KernelProduct:
    kernels = kernels_for(modules[0].weight.device)
    states = [module.weight.quant_state for module in modules]
    k = states[0].shape[1]
    for module, state in zip(modules, states, strict=True):
        if state.quant_type != "nf4" or state.blocksize != kernels.NF4_BLOCK or state.shape[1] != k:
            raise UnsupportedError(f"its weights are {state.quant_type} in blocks of {state.blocksize}")
        if module.weight.dtype != torch.uint8 or k % kernels.NF4_BLOCK:
            raise UnsupportedError(f"its weights of {k} columns are stored as {module.weight.dtype}")
    bias = _bias(modules)
    rows = [state.shape[0] for state in states]
    packed = torch.cat([module.weight.data.view(n, k // 2) for module, n in zip(modules, rows, strict=True)])
    scales = torch.cat([_absmax(s).view(n, -1) for s, n in zip(states, rows, strict=True)])
    for module, state, own, own_scales in zip(
        modules, states, packed.split(rows), scales.split(rows), strict=True
    ):
        module.weight.data = own.view(-1, 1)
        state.absmax, state.nested, state.state2, state.offset = own_scales.reshape(-1), False, None, None
    code = states[0].code.float().contiguous()
    return KernelProduct(packed, scales, code, bias, k)


def _absmax(state: Any) -> Tensor:
    """The scale of each block, float32. Nested ones have an offset for each matrix, so joined ones are plain:
    0.37 bits more a weight.
    """
    if not state.nested:
        return state.absmax.float()
    from bitsandbytes.functional import dequantize_blockwise

    return dequantize_blockwise(state.absmax, state.state2).float() + state.offset


def _lookups(code: Tensor | None) -> dict[torch.dtype, str]:
    """The decoding in registers for each dtype of x that there is one for, which need not be the dtype that
    bitsandbytes computes in. A CPU has none.
    """
    if code is None or not code.is_cuda:
        return {}
    return {dtype: lookup_in_registers(_bits(code, dtype)) for dtype in _LOOKUP_DTYPES}


def _bits(code: Tensor, dtype: torch.dtype) -> list[int]:
    return [value & 0xFFFF for value in code.to(dtype).view(torch.int16).tolist()]


def _int8_product(modules: Sequence[Any]) -> KernelProduct:
    if any(module.state.threshold > 0 for module in modules):
        raise UnsupportedError("it computes outlier columns in another precision")
    bias = _bias(modules)
    rows = [module.out_features for module in modules]
    codes, levels = zip(*(_int8_weight(module) for module in modules), strict=True)
    joined = torch.cat(codes)
    scales = torch.cat(levels).float() / _INT8_LEVELS
    for module, own, own_scales in zip(modules, joined.split(rows), scales.split(rows), strict=True):
        module.weight.data = own
        if module.weight.CB is not None:
            module.weight.CB = own
        else:
            module.state.CB = own
        # bitsandbytes rounds the activations to 8 bits, too, and a model has one arithmetic.
        module.forward = partial(_weight_only_linear, own, own_scales, module.bias)
    return KernelProduct(joined, scales, None, bias, joined.shape[1])


def _weight_only_linear(codes: Tensor, scales: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    """x [..., in] times int8 codes [out, in] with row scales [out]; the activations keep their precision."""
    if x.dtype == torch.float16:
        # A product with the codes alone, 127 ÷ the row's largest weight times as large, may exceed its range.
        out = linear(x, torch.mul(codes, scales[:, None], out=x.new_empty(codes.shape)))
    else:
        out = (linear(x, codes.to(x.dtype)) * scales).to(x.dtype)
    return out if bias is None else out + bias.to(x.dtype)


def keeps_activations(module: torch.nn.Module) -> bool:
    """True for an int8 module of bitsandbytes whose forward no longer rounds the activations."""
    forward = vars(module).get("forward")  # a hook of accelerate is there, too
    return isinstance(forward, partial) and forward.func is _weight_only_linear


def _int8_weight(module: Any) -> tuple[Tensor, Tensor]:
    """Codes [n, k] and row scales [n], which bitsandbytes moves from the weight to the state."""
    if module.weight.CB is not None:
        return module.weight.CB, module.weight.SCB
    if module.state.CB is None:
        raise UnsupportedError("its weights are not quantized yet")
    return module.state.CB, module.state.SCB


def _bias(modules: Sequence[Any]) -> Tensor | None:
    biases = [module.bias for module in modules]
    if all(bias is None for bias in biases):
        return None
    if any(bias is None for bias in biases):
        raise UnsupportedError("only some of its products have a bias")
    return torch.cat([bias.data for bias in biases])
