"""Devices of a load: names resolved, CUDA's attention kernels chosen, and the dtype that a model computes in.

Reads configurations and what a GPU can do; knows nothing of weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from transformers import PreTrainedConfig

from ..errors import LoadError

_FAST_BFLOAT16 = (8, 0)
"""Compute capability from which bfloat16 is as fast as float16; a V100 has 7.0, a T4 7.5."""

_EXCEEDS_FLOAT16 = ("gemma2", "gemma3", "gemma4", "vaultgemma", "glm4")
"""Beginnings of model types trained in bfloat16 whose activations exceed float16's range. vLLM, too, computes
gemma2, gemma3 and glm4 in float32 where there is no bfloat16; gemma4 and vaultgemma are their successors.
"""


def resolve_device(device: str | None) -> torch.device:
    """Return the device of that name; for None and "auto" CUDA if available, else the CPU.

    For CUDA, cuDNN's attention is switched off in the whole process, the caller's own models included. It
    builds a plan for each combination of numbers of queries and keys, so that the first row of a prompt of an
    unseen length takes 21 to 44 ms with it on an H200, and 8 to 9 ms without. Raises LoadError for a device
    that is unknown or not available.
    """
    resolved = _named_device(device)
    if resolved.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)
    return resolved


def _named_device(device: str | None) -> torch.device:
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise LoadError(f"{device!r} is not a device. Use cpu, cuda, cuda:N or auto.") from error
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise LoadError("There is no CUDA device here. Use device cpu, or the embedded preset stories.")
    if resolved.type == "cuda" and (resolved.index or 0) >= max(1, torch.cuda.device_count()):
        present = ", ".join(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        raise LoadError(f"There is no device {device} here. Use {present} or cpu.")
    if resolved.type not in ("cpu", "cuda"):
        raise LoadError(f"Device {device!r} is not supported. Use cpu, cuda, cuda:N or auto.")
    return resolved


def dtype_for(config: PreTrainedConfig, *devices: torch.device) -> torch.dtype:
    """Return the dtype that a model computes in, alone on a device or split over several.

    float32 on the CPU, where half precision is slow; bfloat16 on CUDA; below compute capability 8.0, where
    bfloat16 is slow, float16, or float32 for families that float16 cannot hold. "cuda" without an index
    stands for any GPU here, so the least capable one decides.
    """
    gpus = [device for device in devices if device.type == "cuda"]
    if not gpus:
        return torch.float32
    if _have_fast_bfloat16(gpus):
        return torch.bfloat16
    return torch.float32 if _exceeds_float16(config) else torch.float16


def _have_fast_bfloat16(gpus: Iterable[torch.device]) -> bool:
    """True if all of them have it, and for estimates on a machine without a GPU."""
    if not torch.cuda.is_available():
        return True
    indices = {gpu.index for gpu in gpus}
    return all(
        torch.cuda.get_device_capability(index) >= _FAST_BFLOAT16
        for index in (range(torch.cuda.device_count()) if None in indices else sorted(indices))
    )


def _exceeds_float16(config: PreTrainedConfig) -> bool:
    """True for a model, or a text model inside it, of a family that exceeds float16's range."""
    types = (config.model_type, config.get_text_config(decoder=True).model_type)
    return any(model_type.startswith(_EXCEEDS_FLOAT16) for model_type in types)
