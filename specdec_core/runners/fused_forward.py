"""The lean forward with Triton kernels, for the few rows of decoding and verification on a GPU.

A layer is ten kernels, where torch's own are over forty; each costs a microsecond or two whatever it does.
The residual stream is float32. Runners compare its logits with the modules' before they use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from .fused_attention import fused_attention
from .fused_kernels import kernels_for, power_of_two
from .fused_products import Product, TorchProduct, fused_product
from .lean_forward import LeanForward, UnsupportedError, layer_norms, softcapped


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor  # [hidden] float32, as are all norms
    qkv: Product
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Product
    output_norm: Tensor | None
    mlp_norm: Tensor
    gate_up: Product
    down: Product
    down_norm: Tensor | None
    window: int | None


class FusedForward:
    """The forward of a model whose lean forward is `lean`. Raises UnsupportedError where the kernels do not
    run, and for a model with another activation.
    """

    def __init__(self, model: PreTrainedModel, lean: LeanForward) -> None:
        self._kernels = kernels_for(lean.embedding.device)
        # Attributes of transformers' modules are dynamic.
        config: Any = model.config
        body: Any = model.model
        self._lean = lean
        self._activation = _activation(lean.activation, self._kernels)
        self._eps: float = config.rms_norm_eps
        gemma = lean.embedding_scale is not None
        self._embedding_scale = 1.0 if lean.embedding_scale is None else float(lean.embedding_scale)

        def norm(module: torch.nn.Module | None) -> Tensor | None:
            weight: Any = None if module is None else module.weight
            return None if weight is None else (weight.data.float() + gemma).contiguous()

        self._layers = [
            _fused_layer(layer, lean_layer, norm, lean.window)
            for layer, lean_layer in zip(body.layers, lean.layers, strict=True)
        ]
        self._norm = norm(body.norm)

    def __call__(
        self,
        ids: Tensor,
        positions: Tensor,
        rope: tuple[Tensor, Tensor],
        cache_layers: Sequence[Any],
        bucket: int,
        last_rows: int = 0,
    ) -> Tensor:
        """ids [rows] at positions [rows], ascending; cos and sin [capacity, head_dim]; the layers of a static
        cache, of which the first `bucket` positions may be attended to → logits [rows or last_rows, vocab].
        """
        lean = self._lean
        # Triton launches on the current device, whichever the tensors are on.
        with torch.cuda.device_of(ids):
            stream = _Stream(self, ids.shape[0])
            normed = stream.embed(ids, self._layers[0].norm, self._layers[0].qkv.halves)
            for at, (layer, cache_layer) in enumerate(zip(self._layers, cache_layers, strict=True)):
                queries = self._rotate(layer, layer.qkv(normed), positions, rope, cache_layer)
                mixed = fused_attention(
                    queries,
                    cache_layer.keys,
                    cache_layer.values,
                    positions,
                    bucket,
                    scale=lean.scale,
                    softcap=lean.softcap,
                    window=layer.window,
                    halves=layer.output.halves,
                )
                normed = stream.add(
                    layer.output(mixed), layer.output_norm, layer.mlp_norm, layer.gate_up.halves
                )
                active = self._activate(layer.gate_up(normed), layer.down.halves)
                following = self._layers[at + 1] if at + 1 < len(self._layers) else None
                normed = stream.add(
                    layer.down(active),
                    layer.down_norm,
                    self._norm if following is None else following.norm,
                    following is not None and following.qkv.halves,
                )
            logits = lean.head(normed[-last_rows:])[:, : lean.vocab_size]
            return logits if lean.final_softcap is None else softcapped(logits, lean.final_softcap)

    def _rotate(
        self, layer: _Layer, parts: Tensor, positions: Tensor, rope: tuple[Tensor, Tensor], cache_layer: Any
    ) -> Tensor:
        """Partial results of query, key and value → rotated queries [rows, heads, head_dim]."""
        lean, rows = self._lean, parts.shape[1]
        queries = lean.embedding.new_empty(rows, lean.heads, lean.head_dim)
        if not cache_layer.is_initialized:
            state = queries.new_empty(1, lean.kv_heads, 1, lean.head_dim)
            cache_layer.lazy_initialization(state, state)
        self._kernels.rotate_and_store[(rows, lean.heads + 2 * lean.kv_heads)](
            parts,
            parts if layer.qkv_bias is None else layer.qkv_bias,
            parts if layer.q_norm is None else layer.q_norm,
            parts if layer.k_norm is None else layer.k_norm,
            *rope,
            positions,
            queries,
            cache_layer.keys,
            cache_layer.values,
            rows,
            lean.heads,
            lean.kv_heads,
            cache_layer.keys.shape[2],
            self._eps,
            PARTS=parts.shape[0],
            HAS_BIAS=layer.qkv_bias is not None,
            NORMS_HEADS=layer.q_norm is not None,
            HEAD_DIM=lean.head_dim,
            BLOCK=power_of_two(lean.head_dim),
            num_warps=1,
        )
        return queries

    def _activate(self, parts: Tensor, halves: bool) -> Tensor:
        """Partial results of gate and up [splits, rows, 2 intermediate] → [rows, intermediate]."""
        _, rows, both = parts.shape
        out = self._lean.embedding.new_empty(rows, both // 2)
        block = 1024
        self._kernels.activate[(rows, -(-both // 2 // block))](
            parts,
            out,
            rows,
            both // 2,
            PARTS=parts.shape[0],
            KIND=self._activation,
            HALVES=halves,
            BLOCK=block,
            num_warps=4,
        )
        return out


class _Stream:
    """The residual stream [rows, hidden] of one forward."""

    def __init__(self, forward: FusedForward, rows: int) -> None:
        self._forward = forward
        embedding = forward._lean.embedding
        self._x = embedding.new_empty(rows, embedding.shape[1], dtype=torch.float32)

    def embed(self, ids: Tensor, norm: Tensor | None, halves: bool) -> Tensor:
        """Set the stream to the embeddings of ids [rows]. Returns it normalized."""
        return self._run(self._x, None, norm, halves, ids)

    def add(self, parts: Tensor, added_norm: Tensor | None, norm: Tensor | None, halves: bool) -> Tensor:
        """Add partial results [splits, rows, hidden], normalized with `added_norm`. Returns it normalized."""
        return self._run(parts, added_norm, norm, halves, None)

    def _run(
        self, parts: Tensor, added_norm: Tensor | None, norm: Any, halves: bool, ids: Tensor | None
    ) -> Tensor:
        forward, x = self._forward, self._x
        rows, size = x.shape
        embedding = forward._lean.embedding
        normed = embedding.new_empty(rows, size)
        block = power_of_two(size)
        forward._kernels.add_and_norm[(rows,)](
            x,
            x if ids is None else ids,
            embedding,
            forward._embedding_scale,
            parts,
            norm if added_norm is None else added_norm,
            norm,
            normed,
            rows,
            size,
            forward._eps,
            PARTS=1 if ids is not None else parts.shape[0],
            EMBEDS=ids is not None,
            NORMS_ADDED=added_norm is not None,
            HALVES=halves,
            BLOCK=block,
            num_warps=min(16, max(1, block // 128)),
        )
        return normed


def _activation(function: Any, kernels: Any) -> int:
    known = {
        type(ACT2FN["silu"]): kernels.SILU,
        type(ACT2FN["gelu_pytorch_tanh"]): kernels.GELU_TANH,
        type(ACT2FN["gelu"]): kernels.GELU,
    }
    if type(function) not in known:
        raise UnsupportedError(f"its activation is {type(function).__name__}")
    return known[type(function)]


def _fused_layer(
    layer: Any, lean_layer: Any, norm: Callable[[torch.nn.Module | None], Any], window: int | None
) -> _Layer:
    projections, mlp, norms = layer.self_attn, layer.mlp, layer_norms(layer)
    qkv = fused_product([projections.q_proj, projections.k_proj, projections.v_proj], lean_layer.qkv)

    def without_bias(modules: list[Any], function: Callable[[Tensor], Tensor]) -> Product:
        if any(module.bias is not None for module in modules):
            return TorchProduct(function)
        return fused_product(modules, function)

    return _Layer(
        norm=norm(norms.attention),
        qkv=qkv,
        qkv_bias=qkv.bias,
        q_norm=norm(norms.query),
        k_norm=norm(norms.key),
        output=without_bias([projections.o_proj], lean_layer.output),
        output_norm=norm(norms.attention_output),
        mlp_norm=norm(norms.mlp),
        gate_up=without_bias([mlp.gate_proj, mlp.up_proj], lean_layer.gate_up),
        down=without_bias([mlp.down_proj], lean_layer.down),
        down_norm=norm(norms.mlp_output),
        window=window if lean_layer.attention == "sliding_attention" else None,
    )
