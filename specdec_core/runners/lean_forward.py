"""The forward of the Llama, Qwen and Gemma families with few operations per layer, over any cache.

At batch size 1 a step is many small operations around a few products: on a CPU half of it is Python in
transformers' modules, on a GPU each small kernel takes as long as reading some megabytes of weights. The
weights stay the model's own (query, key and value, and gate and up, become views of one tensor each). Runners
compare its logits with the modules' before they use it. Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, rms_norm, scaled_dot_product_attention
from transformers import PreTrainedModel
from transformers.cache_utils import CacheLayerMixin

from .few_rows import FewRowsLinear, Projection

FAMILIES = {"llama", "qwen2", "qwen3", "gemma", "gemma2"}
MOST_FEW_ROWS = 17
"""A verification of the longest draft; more rows are a prefill."""
_ROPE_TYPES = {"default", "linear", "llama3"}
_ATTENTION = {"full_attention", "sliding_attention"}

Function = Callable[[Tensor], Tensor]


class UnsupportedError(Exception):
    """The lean forward does not support this model, for the reason in `str(error)`."""


@dataclass(frozen=True, slots=True)
class _Layer:
    attention: str  # which mask
    norm: Function  # [rows, hidden] → the same
    qkv: Function  # → [rows, (heads + 2 kv_heads) * head_dim]
    q_norm: Function | None  # [rows, heads, head_dim] → the same, Qwen 3 alone
    k_norm: Function | None
    output: Function  # → [rows, hidden]
    output_norm: Function | None  # of what attention adds, Gemma 2 alone
    mlp_norm: Function
    gate_up: Function  # → [rows, 2 intermediate]
    down: Function
    down_norm: Function | None


@dataclass(frozen=True, slots=True)
class LayerNorms:
    """The norms of a layer, modules with a weight: before its blocks, of the heads (Qwen 3 alone), and of
    what its blocks add (Gemma 2 alone).
    """

    attention: Any
    query: Any
    key: Any
    attention_output: Any
    mlp: Any
    mlp_output: Any


class LeanForward:
    """A model's forward over its own weights. Raises UnsupportedError for models outside of the families.

    `attentions` are the kinds of mask that a call needs, `window` the positions that a sliding one sees.
    """

    def __init__(self, model: PreTrainedModel, vocab_size: int) -> None:
        _require_supported(model)
        # Attributes of transformers' modules are dynamic.
        config: Any = model.config
        body: Any = model.model
        attention = body.layers[0].self_attn
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.group = self.heads // self.kv_heads
        self.head_dim: int = attention.head_dim
        self.scale: float = attention.scaling
        self.softcap: float | None = getattr(config, "attn_logit_softcapping", None)
        self.final_softcap: float | None = getattr(config, "final_logit_softcapping", None)
        self.window: int | None = getattr(config, "sliding_window", None)
        self.activation = body.layers[0].mlp.act_fn
        self.embedding = body.embed_tokens.weight
        # Few rows leave most of a GPU idle in the fused attention kernels.
        self.few_rows_in_products = not self.embedding.is_cpu
        gemma = config.model_type.startswith("gemma")
        # As the modules have it: a number of the weights' own precision.
        self.embedding_scale = self.embedding.new_tensor(config.hidden_size**0.5) if gemma else None
        norm = partial(_norm, eps=config.rms_norm_eps, plus_one=gemma)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * len(body.layers)
        self.attentions = sorted(set(kinds))
        self.layers = [_lean_layer(layer, kind, norm) for layer, kind in zip(body.layers, kinds, strict=True)]
        self.norm = norm(body.norm.weight)
        self.head = _head(model.lm_head, vocab_size)
        self.vocab_size = vocab_size
        self._rotary = body.rotary_emb

    def rope(self, length: int) -> tuple[Tensor, Tensor]:
        """Return cos and sin [length, head_dim] as the model computes them, the rotation's sign in sin."""
        positions = torch.arange(length, device=self.embedding.device)[None]
        cos, sin = self._rotary(self.embedding[:1], positions)
        half = self.head_dim // 2
        return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)

    def mask(self, queries: Tensor, keys: Tensor, attention: str) -> Tensor:
        """Return the additive mask [group * queries, keys] for positions `queries` and `keys`: 0 or -inf. The
        query heads that share a key head are rows of one product.
        """
        allowed = visible(queries, keys, self.window if attention == "sliding_attention" else None)
        added = self.embedding.new_zeros(allowed.shape).masked_fill(~allowed, -torch.inf)
        return added.repeat(self.group, 1)

    def __call__(
        self,
        ids: Tensor,
        cos: Tensor,
        sin: Tensor,
        cache_layers: Sequence[CacheLayerMixin],
        masks: Mapping[str, Tensor | None],
        last_rows: int = 0,
    ) -> Tensor:
        """ids [rows], cos and sin [rows, 1, head_dim] of their positions, the cache's layers, and a mask for
        each kind of attention (None where one row sees every key) → logits [rows or last_rows, vocab].
        """
        x = self.embedding.index_select(0, ids)  # [rows, hidden]
        if self.embedding_scale is not None:
            x = x * self.embedding_scale
        for layer, cache_layer in zip(self.layers, cache_layers, strict=True):
            mixed = self._attention(layer, cache_layer, layer.norm(x), cos, sin, masks[layer.attention])
            x = x + _normed(layer.output(mixed), layer.output_norm)
            gate, up = layer.gate_up(layer.mlp_norm(x)).chunk(2, -1)
            x = x + _normed(layer.down((self.activation(gate) * up).contiguous()), layer.down_norm)
        logits = self.head(self.norm(x[-last_rows:]))[:, : self.vocab_size]
        if self.final_softcap is not None:
            logits = softcapped(logits, self.final_softcap)
        return logits

    def _attention(
        self,
        layer: _Layer,
        cache_layer: CacheLayerMixin,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """[rows, hidden] → [rows, heads * head_dim]."""
        heads, kv_heads, head_dim = self.heads, self.kv_heads, self.head_dim
        qkv = layer.qkv(x).view(-1, heads + 2 * kv_heads, head_dim)
        qk, v = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if layer.q_norm is not None and layer.k_norm is not None:
            qk = torch.cat([layer.q_norm(qk[:, :heads]), layer.k_norm(qk[:, heads:])], 1)
        # Rotation of the halves (Su et al. 2021 as Llama lays it out).
        qk = torch.addcmul(qk * cos, qk.roll(head_dim // 2, -1), sin).transpose(0, 1)[None]
        k, v = cache_layer.update(qk[:, heads:], v.transpose(0, 1)[None])
        folded = qk[:, :heads].reshape(kv_heads, -1, head_dim)  # [kv_heads, group * rows, head_dim]
        if self.softcap is not None:
            scores = torch.bmm(folded, k[0].transpose(1, 2)).float()
            scores = softcapped(scores, self.softcap, self.scale)
            if mask is not None:
                scores = scores + mask
            mixed = torch.bmm(scores.softmax(-1).to(v.dtype), v[0])
        elif mask is None or not self.few_rows_in_products or x.shape[0] > MOST_FEW_ROWS:
            mixed = scaled_dot_product_attention(folded[None], k, v, mask, scale=self.scale)
        else:
            scores = torch.baddbmm(mask, folded, k[0].transpose(1, 2), alpha=self.scale)
            mixed = torch.bmm(scores.softmax(-1), v[0])
        return mixed.reshape(heads, -1, head_dim).transpose(0, 1).reshape(x.shape[0], -1)


def softcapped(x: Tensor, cap: float, scale: float = 1.0) -> Tensor:
    """scale · x, bounded smoothly to ±cap (Gemma 2)."""
    return torch.tanh(x * (scale / cap)) * cap


def visible(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    """Boolean mask [queries, keys] for two vectors of positions: causal, optionally limited to a sliding
    window.
    """
    allowed = keys <= queries[:, None]
    return allowed if window is None else allowed & (keys > queries[:, None] - window)


def _require_supported(model: PreTrainedModel) -> None:
    config: Any = model.config
    if config.model_type not in FAMILIES:
        raise UnsupportedError(f"{config.model_type} is not of the Llama, Qwen or Gemma family")
    if unknown := sorted(set(getattr(config, "layer_types", None) or ()) - _ATTENTION):
        raise UnsupportedError(f"it has layers of {', '.join(unknown)}")
    body: Any = model.model
    if body.rotary_emb.rope_type not in _ROPE_TYPES:
        raise UnsupportedError(f"its rotary embedding is of type {body.rotary_emb.rope_type}")


def layer_norms(layer: Any) -> LayerNorms:
    """Return the norms of one of transformers' layers."""
    # Gemma 2 normalizes what a block adds, too, and its names shift.
    adds_normed = hasattr(layer, "pre_feedforward_layernorm")
    return LayerNorms(
        attention=layer.input_layernorm,
        query=getattr(layer.self_attn, "q_norm", None),
        key=getattr(layer.self_attn, "k_norm", None),
        attention_output=layer.post_attention_layernorm if adds_normed else None,
        mlp=layer.pre_feedforward_layernorm if adds_normed else layer.post_attention_layernorm,
        mlp_output=getattr(layer, "post_feedforward_layernorm", None),
    )


def _lean_layer(layer: Any, attention: str, norm: Callable[[Tensor], Function]) -> _Layer:
    projections, mlp, norms = layer.self_attn, layer.mlp, layer_norms(layer)

    def norm_of(module: Any) -> Function | None:
        return None if module is None else norm(module.weight)

    return _Layer(
        attention=attention,
        norm=norm(norms.attention.weight),
        qkv=_side_by_side(projections.q_proj, projections.k_proj, projections.v_proj),
        q_norm=norm_of(norms.query),
        k_norm=norm_of(norms.key),
        output=_side_by_side(projections.o_proj),
        output_norm=norm_of(norms.attention_output),
        mlp_norm=norm(norms.mlp.weight),
        gate_up=_side_by_side(mlp.gate_proj, mlp.up_proj),
        down=_side_by_side(mlp.down_proj),
        down_norm=norm_of(norms.mlp_output),
    )


def _normed(x: Tensor, norm: Function | None) -> Tensor:
    return x if norm is None else norm(x)


def _norm(weight: Tensor, eps: float, plus_one: bool) -> Function:
    """RMSNorm with this weight; Gemma's counts from 1 and is multiplied before the result is rounded."""
    shape = weight.shape
    if weight.is_cpu and weight.dtype == torch.float32:
        # A LayerNorm over (x, −x), whose mean is 0 and whose variance is x's mean square, is two kernels on
        # the CPU, where torch's RMSNorm is six. The half of −x is dropped.
        doubled = torch.cat([weight.data + plus_one, torch.zeros_like(weight.data)])

        def normed(x: Tensor) -> Tensor:
            return layer_norm(torch.cat([x, -x], -1), doubled.shape, doubled, None, eps)[..., : shape[0]]

        return normed
    if plus_one:
        exact = 1 + weight.data.float()
        return lambda x: rms_norm(x.float(), shape, exact, eps).to(x.dtype)
    return lambda x: rms_norm(x, shape, weight, eps)


def _side_by_side(*modules: torch.nn.Module) -> Function:
    """x [rows, in] → the concatenated outputs [rows, out]; one product unless the weights are quantized."""
    plain = [module for module in modules if _is_plain(module)]
    if len(plain) == len(modules):
        return _product(*joined(plain))
    if len(modules) == 1:
        return modules[0]
    return lambda x: torch.cat([module(x) for module in modules], -1)


def _is_plain(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear]:
    """True for a product with the weight as it is; bitsandbytes' layers are subclasses of nn.Linear."""
    return type(module) in (torch.nn.Linear, FewRowsLinear)


def _product(weight: Tensor, bias: Tensor | None) -> Function:
    if weight.is_cpu and weight.dtype == torch.float32:
        return Projection(weight, bias)
    return partial(linear, weight=weight, bias=bias)


def joined(modules: Sequence[torch.nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Return one weight with the rows of all layers, and their biases.

    The layers' own weights become views of it, so that memory is not doubled.
    """
    bias = None if modules[0].bias is None else torch.cat([module.bias.data for module in modules])
    if len(modules) == 1:
        return modules[0].weight.data, bias
    weight = torch.cat([module.weight.data for module in modules])
    for module, part in zip(modules, weight.split([module.out_features for module in modules]), strict=True):
        module.weight = torch.nn.Parameter(part, requires_grad=False)
    return weight, bias


def _head(head: torch.nn.Module, vocab_size: int) -> Function:
    """The output layer, cut to the tokenizer's ids if it is a plain product."""
    if not _is_plain(head):
        return head
    bias = None if head.bias is None else head.bias.data[:vocab_size]
    return _product(head.weight.data[:vocab_size], bias)
