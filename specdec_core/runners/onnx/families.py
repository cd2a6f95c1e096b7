"""The models whose forward can be built as a graph. Needs neither onnx nor onnxruntime."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from ...onnx_runtime.packages import obstacle
from ..lean_forward import UnsupportedError

FULL, SLIDING = "full_attention", "sliding_attention"

_FAMILIES = {"llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"}
_ROPE_TYPES = {"default", "linear", "llama3"}
_HEAD_UNIT = 16
"""ONNX Runtime's attention rotates heads of a multiple of so many dimensions."""


def require_family(config: Any) -> None:
    """Raise UnsupportedError for a model of another family."""
    if config.model_type not in _FAMILIES:
        raise UnsupportedError(f"{config.model_type} is not of the Llama, Qwen or Gemma family")


def require_supported(model: PreTrainedModel) -> None:
    """Raise UnsupportedError for a model of another family, or one whose layers, heads or rotations the graph
    has no operators for. The model may be on the meta device.
    """
    config: Any = model.config
    require_family(config)
    body: Any = model.model
    kinds = set(getattr(config, "layer_types", None) or ())
    if unknown := sorted(kinds - {FULL, SLIDING}):
        raise UnsupportedError(f"it has layers of {', '.join(unknown)}")
    head_dim = body.layers[0].self_attn.head_dim
    if head_dim % _HEAD_UNIT:
        raise UnsupportedError(f"its heads have {head_dim} dimensions, not a multiple of {_HEAD_UNIT}")
    rope_type = body.rotary_emb.rope_type
    types = set(rope_type.values()) if isinstance(rope_type, dict) else {rope_type}
    if unknown := sorted(types - _ROPE_TYPES):
        raise UnsupportedError(f"its rotary embedding is of type {', '.join(unknown)}")


def require_packages() -> None:
    """Raise UnsupportedError if onnx or onnxruntime cannot be used."""
    if (reason := obstacle()) is not None:
        raise UnsupportedError(reason)


def supported(model: PreTrainedModel) -> bool:
    """Return True if the packages are installed and the model's forward can be built as a graph."""
    try:
        require_packages()
        require_supported(model)
    except UnsupportedError:
        return False
    return True
