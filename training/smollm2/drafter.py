"""The drafter: some of the target's layers, a norm, and a head over the likeliest ids.

The embedding is the target's, unchanged. Knows nothing of the loss.
"""

from collections.abc import Iterable
from itertools import chain, count

import torch
from torch import Tensor

from . import shards
from .layers import Layer, Shape, rms_norm, run_layers
from .target import Target

_ATTENTION, _MLP = "self_attn.{}_proj.weight", "mlp.{}_proj.weight"
WEIGHT_NAMES = [
    "input_layernorm.weight",
    *(_ATTENTION.format(name) for name in "qkvo"),
    "post_attention_layernorm.weight",
    *(_MLP.format(name) for name in ("gate", "up", "down")),
]
"""Names of a layer's weights as transformers has them."""


class Drafter:
    """Weights in float32, computed with in the target's type."""

    def __init__(self, layers: Iterable[Layer], norm: Tensor, head: Tensor, head_ids: Tensor):
        """head `[ids, hidden]`, head_ids `[ids]`: row i of the head gives the logit of head_ids[i]."""
        self.layers = [Layer(*(_own(weight) for weight in layer)) for layer in layers]
        self.norm, self.head, self.head_ids = _own(norm), _own(head), head_ids

    @classmethod
    def from_target(cls, target: Target, indices: Iterable[int], head_ids: Tensor) -> "Drafter":
        """Build a drafter of copied target layers, with a head over `head_ids`."""
        layers = [target.layers[index] for index in indices]
        return cls(layers, target.norm, target.embedding[head_ids], head_ids)

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> "Drafter":
        """Build a drafter from saved tensors by name."""
        layers = []
        for index in count():
            if f"layers.{index}.{WEIGHT_NAMES[0]}" not in tensors:
                break
            weights = [tensors[f"layers.{index}.{name}"] for name in WEIGHT_NAMES]
            input_norm, query, key, value, out, post_norm, gate, up, down = weights
            layers.append(
                Layer(input_norm, torch.cat([query, key, value]), out, post_norm, torch.cat([gate, up]), down)
            )
        return cls(layers, tensors["norm.weight"], tensors["head"], tensors[shards.HEAD_IDS])

    def tensors(self, shape: Shape) -> dict[str, Tensor]:
        """Return the weights by their stored names."""
        named = {}
        for index, layer in enumerate(self.layers):
            parts = (
                layer.input_norm,
                *layer.qkv.split(shape.qkv_rows),
                layer.out,
                layer.post_norm,
                *layer.gate_up.chunk(2),
                layer.down,
            )
            for name, weight in zip(WEIGHT_NAMES, parts, strict=True):
                named[f"layers.{index}.{name}"] = weight
        return {**named, "norm.weight": self.norm, "head": self.head, shards.HEAD_IDS: self.head_ids}

    def rounded(self, shape: Shape) -> "Drafter":
        """Return the drafter as it reads back from its files."""
        return Drafter.from_tensors(shards.dequantize(shards.quantize(self.tensors(shape))))

    @property
    def parameters(self) -> list[Tensor]:
        """Trainable tensors: layers, norm and head."""
        return [*chain.from_iterable(self.layers), self.norm, self.head]

    def states(self, target: Target, ids: Tensor, positions: Tensor) -> Tensor:
        """Return the normed states `[positions, hidden]` at positions of the flattened `ids`.

        A state times the transposed head is the logits over `head_ids`.
        """
        layers = [Layer(*(weight.to(target.dtype) for weight in layer)) for layer in self.layers]
        x = run_layers(target.embedding[ids], layers, target.rotary, target.shape)
        return rms_norm(x.flatten(0, 1)[positions], self.norm.to(target.dtype), target.shape)


def _own(weight: Tensor) -> Tensor:
    return weight.float().clone().contiguous()
