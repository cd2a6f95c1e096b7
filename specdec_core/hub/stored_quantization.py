"""Quantization that a checkpoint is stored in, and what keeps transformers from loading it.

Reads the configuration; knows nothing of weights, nor of quantization that a caller asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

from ..settings import Quantization
from .errors import first_line

MODELOPT = "modelopt"
"""NVIDIA's ModelOpt, whose settings are in hf_quant_config.json beside config.json."""

QUANTIZATION_KEYS = ("quantization_config", "compression_config")
"""Keys of config.json; the second is that of early releases of compressed-tensors."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The reason why stored weights cannot be loaded, a clause. `everywhere`: no other device would help."""

    reason: str
    everywhere: bool


@dataclass(frozen=True, slots=True)
class StoredQuantization:
    """The quantization of a checkpoint's weights. `values` are those of its `quantization_config`."""

    values: Mapping[str, Any] = field(hash=False)

    @property
    def method(self) -> str:
        """The method by transformers' name, which for bitsandbytes has the bits."""
        for bits in (4, 8):
            if self.values.get(f"load_in_{bits}bit"):
                return f"bitsandbytes_{bits}bit"
        return str(self.values.get("quant_method") or "an unnamed format")

    @property
    def dequantized(self) -> bool:
        """True if the weights become floating point while they are loaded.

        So they do wherever transformers can: the products of the other formats run compiled code that is
        downloaded from the Hub (the package kernels).
        """
        settings = AUTO_QUANTIZATION_CONFIG_MAPPING.get(self.method)
        return settings is not None and "dequantize" in inspect.signature(settings).parameters

    @property
    def loading_values(self) -> dict[str, Any]:
        """The `quantization_config` to load with."""
        if self.dequantized:
            return dict(self.values) | {"dequantize": True}
        if self.method == "bitsandbytes_8bit":
            # With a threshold, outlier columns are found over all rows: later drafts would change earlier p.
            return dict(self.values) | {"llm_int8_threshold": 0.0}
        return dict(self.values)

    @property
    def in_memory(self) -> Quantization:
        """The quantization that takes about as much memory; "int8" where the bits are not known."""
        if self.dequantized:
            return "none"
        bits = 4 if self.values.get("load_in_4bit") else self.values.get("bits")
        return "nf4" if isinstance(bits, int) and bits <= 4 else "int8"

    def __str__(self) -> str:
        return f"{self.method}, dequantized" if self.dequantized else self.method

    def obstacle(self, device: str) -> Obstacle | None:
        """Return what keeps transformers from loading the weights onto `device`, None if nothing does."""
        if self.method not in AUTO_QUANTIZATION_CONFIG_MAPPING:
            return Obstacle(f"transformers {transformers.__version__} does not know that format", True)
        quantizer = None
        try:
            quantizer = AutoHfQuantizer.from_config(self.loading_values, pre_quantized=True)
            quantizer.validate_environment(device_map={"": device}, weights_only=True)
        except ModuleNotFoundError as error:
            return Obstacle(f"{first_line(error)}: pip install {error.name}", True)
        except Exception as error:  # settings from a file may be anything
            # Settings and packages come first; what else a validation finds wrong is the device.
            everywhere = quantizer is None or isinstance(error, ImportError)
            return Obstacle(first_line(error).rstrip("."), everywhere)
        return None


def stored_quantization(config: PreTrainedConfig) -> StoredQuantization | None:
    """Return the quantization that a configuration, or the one of its text model, describes."""
    for owner in (config, config.get_text_config(decoder=True)):
        for key in QUANTIZATION_KEYS:
            values = getattr(owner, key, None)
            if values:
                described = isinstance(values, Mapping)
                return StoredQuantization(values if described else {"quant_method": str(values)})
    return None


def remove_empty_quantization(config: PreTrainedConfig) -> None:
    """Remove a `quantization_config` without settings, which transformers takes for an unnamed method."""
    for owner in (config, config.get_text_config(decoder=True)):
        if not getattr(owner, "quantization_config", True):
            delattr(owner, "quantization_config")
