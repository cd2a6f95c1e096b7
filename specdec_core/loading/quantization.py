"""Quantization of weights while they are loaded: the caller's, and the one that a checkpoint is stored in.

Reads configurations only, so that its errors come before a download.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from ..errors import LoadError
from ..hub.stored_quantization import StoredQuantization, stored_quantization
from ..runners import Format, UnsupportedError
from ..runners.onnx.families import require_family, require_packages
from ..settings import Quantization

_STORED_ALIKE = {"nf4": "bitsandbytes_4bit", "int8": "bitsandbytes_8bit"}
"""The format of a checkpoint in which asking for a quantization changes nothing."""

CPU_FORMATS: dict[Quantization, Format] = {"none": "float32", "int8": "int8", "int4": "int4"}
"""Formats of weights on a CPU, for the quantizations that are possible there."""

_BITSANDBYTES_STATE = {"Linear4bit": "quant_state", "Linear8bitLt": "CB"}
"""Attribute of a quantized weight that each layer of bitsandbytes computes with."""


def require_loadable(
    model: str, config: PreTrainedConfig, quantization: Quantization, device: torch.device
) -> StoredQuantization | None:
    """Return the quantization that `model` is stored in, None if it is stored in floating point.

    Raises LoadError if transformers cannot load it onto `device`, or cannot add `quantization` to it there.
    """
    if quantization == "nf4" and device.type != "cuda":
        raise LoadError("nf4 quantization needs a CUDA device. Use int4 on a CPU.")
    if quantization == "int4" and device.type == "cuda":
        raise LoadError("int4 is a format for CPUs. Use nf4 on a CUDA device.")
    if quantization != "none" and device.type == "cpu":
        require_onnx(model, config, quantization)
    stored = stored_quantization(config)
    if stored is None:
        return None
    if (obstacle := stored.obstacle(str(device))) is not None:
        raise LoadError(
            f"The weights of {model} are stored in {stored.method}, which cannot be loaded on {device}: "
            f"{obstacle.reason}. Or choose the model that they were quantized from."
        )
    if quantization != "none" and (device.type == "cpu" or _STORED_ALIKE[quantization] != stored.method):
        raise LoadError(
            f"The weights of {model} are stored in {stored.method}; {quantization} cannot be added to that. "
            "Use quantization none for it, or choose the model that they were quantized from."
        )
    return stored


def require_onnx(model: str, config: PreTrainedConfig, quantization: Quantization) -> None:
    """Raise LoadError if no runner on a CPU computes this model with quantized weights."""
    try:
        require_packages()
        require_family(config)
    except UnsupportedError as error:
        raise LoadError(
            f"{model} cannot be loaded in {quantization} on a CPU: {error}. Use quantization none for it."
        ) from error


def require_quantized(name: str, model: PreTrainedModel) -> None:
    """Raise LoadError if bitsandbytes would compute with a weight that the files have in floating point."""
    for path, module in model.named_modules():
        state = _BITSANDBYTES_STATE.get(type(module).__name__)
        if state is not None and getattr(module.weight, state, None) is None:
            raise LoadError(
                f"The config.json of {name} says that {path}.weight is quantized by bitsandbytes, but it is "
                "not. Name its module in llm_int8_skip_modules there, or download the weights again."
            )


def allow_all_shapes(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from packing four-bit weights for AVX512 that its packing does not take.

    It takes multiples of 32 rows and of whole blocks of columns, and asserts that in the first forward.
    """
    for module in model.modules():
        if getattr(module, "support_avx512bf16_for_cpu", False):
            linear: Any = module
            block = linear.weight.quant_state.blocksize
            linear.support_avx512bf16_for_cpu = (
                linear.out_features % 32 == 0 and linear.in_features % block == 0
            )


def stored_config(stored: StoredQuantization, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Return the `quantization_config` to load stored weights with, for a model that computes in `dtype`.

    A four-bit checkpoint names the compute dtype of the GPU that it was made for, often bfloat16. On a GPU
    `dtype` takes its place.
    """
    values = stored.loading_values
    if stored.method == "bitsandbytes_4bit" and device.type == "cuda":
        values["bnb_4bit_compute_dtype"] = str(dtype).removeprefix("torch.")
    return values


def bitsandbytes_config(
    quantization: Quantization, dtype: torch.dtype, device: torch.device
) -> BitsAndBytesConfig | None:
    """Return the settings to quantize floating-point weights with while they are loaded; None on a CPU, where
    the runner does it.

    `dtype` is that of the activations. int8 computes in float16 whatever it is.
    """
    if device.type == "cpu":
        return None
    if quantization == "nf4":
        # bitsandbytes computes in float32 unless told otherwise, for which it has no fast kernel.
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            # Plain scales take 0.37 bits more a weight, and weights of one product can be joined.
            bnb_4bit_use_double_quant=False,
        )
    if quantization == "int8":
        # It logs in every layer of every forward that it casts bfloat16 to float16.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        # With a threshold, outlier columns are found over all rows, so later drafts would change earlier p.
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return None
