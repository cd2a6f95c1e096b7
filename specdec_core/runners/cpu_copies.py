"""The copies of weights that the CPU's runners make in a layout that their products read faster."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from . import lean_forward
from .few_rows import packed_bytes
from .onnx import families

_PROJECTIONS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The products of one layer; the weights of each are joined."""


def copied_bytes(model: PreTrainedModel, packs: bool = True) -> int:
    """Return the bytes that the CPU runner of this float32 model adds to its weights, one that copies all of
    them if `packs`. The model may be on the meta device.
    """
    on_onnx = packs and families.supported(model)
    if not on_onnx and model.config.model_type not in lean_forward.FAMILIES:
        return 0
    weights = {name: tensor.nbytes for name, tensor in model.named_parameters(remove_duplicate=False)}
    head: Any = model.get_output_embeddings()
    products = [head.weight.nbytes]
    for at in range(model.config.num_hidden_layers):
        for names in _PROJECTIONS:
            products.append(sum(weights[f"model.layers.{at}.{name}.weight"] for name in names))
    return sum(products) if on_onnx else sum(map(packed_bytes, products))
