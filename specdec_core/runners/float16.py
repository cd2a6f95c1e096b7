"""The likely cause of logits that are not finite where a model computes in float16, and the ways out."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from .fused_products import keeps_activations


def float16_overflow(model: PreTrainedModel) -> str | None:
    """Return the cause in sentences for people; None if no part of the model computes in float16."""
    largest = f"{torch.finfo(torch.float16).max:,.0f}"
    if model.dtype == torch.float16:
        part = "It computes in float16, since bfloat16 is slow here"
        way_out = "a GPU of compute capability 8.0 or later"
    elif any(map(_casts_to_float16, model.modules())):
        part, way_out = "bitsandbytes computes int8 layers in float16", "quantization none or nf4"
    else:
        return None
    return (
        f"{part}, and the activations of this model exceed float16's range (±{largest}), unless its weights "
        f"are damaged. Use {way_out}, or device cpu with quantization none."
    )


def _casts_to_float16(module: torch.nn.Module) -> bool:
    """True for bitsandbytes' int8 layer, unless its forward is replaced by one over the weights alone."""
    return type(module).__name__ == "Linear8bitLt" and not keeps_activations(module)
