"""Scales of weights that are stored in a quantized dtype, checked by the headers of the files.

transformers casts a quantized weight that has no scale as if its integers or eight-bit floats were the
weight, and stretches scales of a wrong shape. Both answer, and answer nonsense.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from ..errors import LoadError
from ..hub.stored_quantization import StoredQuantization
from ..hub.weight_files import StoredTensor
from ..units import counted
from .completeness import BUFFERS

_FLOATING = ("F64", "F32", "F16", "BF16")
_WEIGHT = re.compile(r"(weight|bias|_proj|_blocks)$")
_SCALE = re.compile(r"(scales?|scale_inv|scale_weight|SCB|weight_format|absmax|quant_map|quant_state\.\w+)$")

_SCALE_NAMES = {
    "fp8": (
        ("", "_scale_inv"),
        (".weight", ".scale"),
        (".weight", ".qscale_weight"),
        ("", "_scale"),
    ),
    "mxfp4": (("_blocks", "_scales"),),
    "bitsandbytes_8bit": ((".weight", ".SCB"),),
    "bitsandbytes_4bit": (
        ("", ".quant_state.bitsandbytes__nf4"),
        ("", ".quant_state.bitsandbytes__fp4"),
    ),
}
"""Endings of a weight's name and of its scale's, by method. Of other methods transformers misses scales."""

_DEFAULT_BLOCK = (128, 128)
_FP4_BLOCK = (1, 32)
"""Blocks of experts in four bits, two of which make an int8 (DeepSeek-V4)."""


def require_scales(
    model: str, tensors: Mapping[str, StoredTensor], stored: StoredQuantization | None
) -> None:
    """Raise LoadError for a weight in a quantized dtype that neither a method nor its scales explain."""
    quantized = sorted(name for name, tensor in tensors.items() if _is_quantized_weight(name, tensor))
    if stored is None:
        if quantized:
            raise LoadError(
                f"{model} has {counted(len(quantized), 'weight')} in a quantized dtype, the first being "
                f"{quantized[0]} in {tensors[quantized[0]].dtype}, but its config.json has no "
                "quantization_config. Download config.json again, or choose the model that they were "
                "quantized from."
            )
        return
    if stored.method not in _SCALE_NAMES:
        return
    if stored.method.startswith("bitsandbytes") and not any(_SCALE.search(name) for name in tensors):
        raise LoadError(
            f"The config.json of {model} says {stored.method}, but its weights are not quantized. Remove "
            "quantization_config from config.json to load them as they are, or choose the quantized files."
        )
    scales = {name: _scale_of(name, stored.method, tensors) for name in quantized}
    if missing := [name for name, scale in scales.items() if scale is None]:
        first = missing[0]
        raise LoadError(
            f"{model} is stored in {stored.method} and lacks the scales of {counted(len(missing), 'weight')}"
            f", the first being {_scale_candidates(first, stored.method)[0]} of {first} in "
            f"{tensors[first].dtype}. Download or copy the weights again."
        )
    if stored.method == "fp8":
        for name, scale in scales.items():
            if scale is not None and not scale.endswith("weight_scale"):
                _require_shape(model, name, scale, tensors, stored)


def _is_quantized_weight(name: str, tensor: StoredTensor) -> bool:
    if tensor.dtype in _FLOATING or BUFFERS.search(name) or _SCALE.search(name):
        return False
    return tensor.dtype.startswith("F") or _WEIGHT.search(name) is not None


def _scale_candidates(name: str, method: str) -> list[str]:
    """Return the possible names of a weight's scale, the usual one first."""
    endings = _SCALE_NAMES[method]
    names = [name.removesuffix(weight) + scale for weight, scale in endings if name.endswith(weight)]
    return names or [name + endings[0][1]]


def _scale_of(name: str, method: str, tensors: Mapping[str, StoredTensor]) -> str | None:
    return next((scale for scale in _scale_candidates(name, method) if scale in tensors), None)


def _require_shape(
    model: str, name: str, scale: str, tensors: Mapping[str, StoredTensor], stored: StoredQuantization
) -> None:
    """Raise LoadError for scales of another shape than the blocks have, or than transformers can spread.

    transformers takes the weight's size divided by the number of scales for the size of a block, which is
    wrong where the last block is cut short.
    """
    weight, shape = tensors[name], tensors[scale].shape
    four_bits = weight.dtype in ("I8", "F4")
    *experts, rows, columns = (1, *weight.shape) if len(weight.shape) == 1 else weight.shape
    if weight.dtype == "I8":
        columns *= 2
    one_each = math.prod(shape) == math.prod(experts)
    blocks = _FP4_BLOCK if four_bits else stored.values.get("weight_block_size", _DEFAULT_BLOCK)
    # transformers takes the blocks from the scales, so a configuration may leave out that it has none.
    may_be_whole = blocks is None or not (four_bits or "weight_block_size" in stored.values)
    if may_be_whole and (one_each or shape == (*experts, rows, 1)):
        return
    again = "Download or copy the weights again, or correct weight_block_size in config.json."
    problem = f"{scale} of {model} has the shape {shape}; {name} of shape {weight.shape} needs"
    if blocks is None:
        raise LoadError(f"{problem} one scale, or one for each row. {again}")
    grid = (math.ceil(rows / blocks[0]), math.ceil(columns / blocks[1]))
    if shape != (*experts, *grid) and not (one_each and grid == (1, 1)):
        raise LoadError(f"{problem} {(*experts, *grid)}, by blocks of {tuple(blocks)}. {again}")
    sizes = zip((rows, columns), grid, blocks, strict=True)
    if any(count > 1 and size != count * block for size, count, block in sizes):
        raise LoadError(
            f"The weights of {model} are stored in {stored.method} in blocks of {tuple(blocks)}. "
            f"transformers cannot dequantize {name}, since its shape {weight.shape} is no multiple of that. "
            "Choose the model that they were quantized from."
        )
