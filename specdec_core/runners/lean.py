"""The lean runner: the Llama family's forward on the CPU in as few operations as it takes.

At these sizes half of a step is Python in transformers' modules. The weights stay the model's own (query,
key and value, and gate and up, become views of one tensor each), and a runner that does not reproduce the
modules' logits is never made. Knows nothing of text, sampling or speculation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm, scaled_dot_product_attention

from .eager import EagerRunner
from .few_rows import MOST_ROWS, Projection, packed_bytes
from .kv_cache import KVCache, RewindableLayer
from .short_head import ShortHead

_FAMILIES = {"llama", "qwen3"}
_ROPE_TYPES = {"default", "linear", "llama3"}
_TOLERANCE = 1e-3
_PROJECTIONS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""The products of one layer; the weights of each are joined."""


class UnsupportedError(Exception):
    """This model is not one that the lean forward computes; `str` says why."""


@dataclass(frozen=True, slots=True)
class _Layer:
    norm: Tensor  # [2 * hidden], as `_doubled` makes it
    qkv: Projection  # [(heads + 2 kv_heads) * head_dim, hidden]
    q_norm: Tensor | None  # [head_dim], Qwen 3 alone
    k_norm: Tensor | None
    output: Projection  # [hidden, heads * head_dim]
    mlp_norm: Tensor  # [2 * hidden]
    gate_up: Projection  # [2 * intermediate, hidden]
    down: Projection  # [hidden, intermediate]


class LeanRunner(EagerRunner):
    """Raises UnsupportedError where the model must be left to transformers' own modules."""

    name = "lean"

    def __init__(
        self, model: torch.nn.Module, *, vocab_size: int | None = None, context_length: int | None = None
    ) -> None:
        super().__init__(model, vocab_size=vocab_size, context_length=context_length)
        _require_supported(model)
        config, body = model.config, model.model
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = body.layers[0].self_attn.head_dim
        self.scale: float = body.layers[0].self_attn.scaling
        self.eps: float = config.rms_norm_eps
        self.activation = body.layers[0].mlp.act_fn
        self.layers = [_fused(layer) for layer in body.layers]
        self.norm = _doubled(body.norm.weight)
        self.embedding = body.embed_tokens.weight
        head = model.lm_head
        self.head = head if isinstance(head, ShortHead) else Projection(head.weight[: self.vocab_size])
        self._rope_length = 0
        self._masks: dict[int, Tensor] = {}
        self._require_same_logits()

    def _logits(self, cache: KVCache, ids: Tensor, last_rows: int) -> Tensor:
        rows, start = ids.shape[0], cache.length
        end = start + rows
        cos, sin = self._rope(end)
        cos, sin = cos[start:end, None], sin[start:end, None]  # [rows, 1, head_dim]
        mask = self._mask(rows, end) if rows > 1 else None
        x = self.embedding.index_select(0, ids)  # [rows, hidden]
        for layer, held in zip(self.layers, cache.layers, strict=True):
            x = x + self._attention(layer, held, x, cos, sin, mask)
            x = x + self._mlp(layer, x)
        return self.head(self._normed(x[-last_rows:], self.norm))[:, : self.vocab_size]

    def _normed(self, x: Tensor, doubled: Tensor) -> Tensor:
        """RMSNorm as a LayerNorm over (x, −x), whose mean is 0 and whose variance is x's mean square: two
        kernels on the CPU, where torch's own takes six.
        """
        return layer_norm(torch.cat([x, -x], -1), doubled.shape, doubled, None, self.eps)[:, : x.shape[1]]

    def _attention(
        self, layer: _Layer, held: RewindableLayer, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None
    ) -> Tensor:
        heads, kv_heads, head_dim = self.heads, self.kv_heads, self.head_dim
        qkv = layer.qkv(self._normed(x, layer.norm)).view(-1, heads + 2 * kv_heads, head_dim)
        qk, v = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
        if layer.q_norm is not None:
            q = rms_norm(qk[:, :heads], layer.q_norm.shape, layer.q_norm, self.eps)
            k = rms_norm(qk[:, heads:], layer.k_norm.shape, layer.k_norm, self.eps)
            qk = torch.cat([q, k], 1)
        # Rotation of the halves (Su et al. 2021 as Llama lays it out); the sign is in `sin`.
        qk = torch.addcmul(qk * cos, qk.roll(head_dim // 2, -1), sin).transpose(0, 1)[None]
        k, v = held.update(qk[:, heads:], v.transpose(0, 1)[None])
        q = qk[:, :heads]
        if mask is None or x.shape[0] > MOST_ROWS:
            mixed = scaled_dot_product_attention(q, k, v, mask, scale=self.scale, enable_gqa=kv_heads < heads)
        else:
            # The query heads that share a key head are rows of one product.
            folded = q.reshape(kv_heads, -1, head_dim)
            scores = torch.baddbmm(mask, folded, k[0].transpose(1, 2), alpha=self.scale)
            mixed = torch.bmm(scores.softmax(-1), v[0]).view(q.shape)
        return layer.output(mixed[0].transpose(0, 1).reshape(x.shape[0], -1))

    def _mlp(self, layer: _Layer, x: Tensor) -> Tensor:
        gate, up = layer.gate_up(self._normed(x, layer.mlp_norm)).chunk(2, -1)
        return layer.down((self.activation(gate) * up).contiguous())

    def _mask(self, rows: int, end: int) -> Tensor:
        """What is added to the scores of the last `rows` of `end` positions: 0, or -inf for what comes later.

        For a prefill [rows, end]; for few rows [group * rows, end], as `_attention` folds them: the end of a
        longer mask that is kept.
        """
        if rows > MOST_ROWS:
            return torch.full((rows, end), -torch.inf).triu_(end - rows + 1)
        kept = self._masks.get(rows)
        if kept is None or kept.shape[1] < end:
            length = max(1024, 2 * end)
            later = torch.full((rows, length), -torch.inf).triu_(length - rows + 1)
            kept = self._masks[rows] = later.repeat(self.heads // self.kv_heads, 1)
        return kept[:, -end:]

    def _rope(self, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin [positions, head_dim] for at least `length` positions, as the model computes them."""
        if length > self._rope_length:
            self._rope_length = max(1024, 2 * length)
            positions = torch.arange(self._rope_length)[None]
            cos, sin = self.model.model.rotary_emb(self.embedding[:1], positions)
            half = self.head_dim // 2
            self._cos, self._sin = cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)
        return self._cos, self._sin

    @torch.inference_mode()
    def _require_same_logits(self) -> None:
        """Prefill, one row and several rows, against the modules' own forward over the whole."""
        ids = torch.arange(1, 13) * 7919 % self.vocab_size
        cache = self.new_cache()
        got = torch.cat([self.forward(cache, part) for part in ids.split([9, 1, 2])])
        wanted = super()._logits(self.new_cache(), ids, 0)
        spread = wanted[wanted.isfinite()].std().clamp(min=1.0)
        if not torch.allclose(got / spread, wanted / spread, atol=_TOLERANCE, rtol=0):
            raise UnsupportedError("the lean forward's logits differ from the model's own")


def copied_bytes(model: torch.nn.Module) -> int:
    """What a lean runner of this model will hold beside its weights. The model may be on the meta device."""
    if model.config.model_type not in _FAMILIES:
        return 0
    weights = {name: tensor.nbytes for name, tensor in model.named_parameters(remove_duplicate=False)}
    total = packed_bytes(model.get_output_embeddings().weight.nbytes)
    for at in range(model.config.num_hidden_layers):
        for names in _PROJECTIONS:
            total += packed_bytes(sum(weights[f"model.layers.{at}.{name}.weight"] for name in names))
    return total


def _require_supported(model: torch.nn.Module) -> None:
    config = model.config
    if config.model_type not in _FAMILIES:
        raise UnsupportedError(f"{config.model_type} is not of the Llama family")
    weights = list(model.parameters())
    if any(w.dtype != torch.float32 or not w.is_cpu for w in weights):
        raise UnsupportedError("the weights are not float32 on the CPU")
    if any(name.endswith("proj.bias") for name, _ in model.named_parameters()):
        raise UnsupportedError("its projections have biases")
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        raise UnsupportedError("not all of its layers attend to everything")
    if model.model.rotary_emb.rope_type not in _ROPE_TYPES:
        raise UnsupportedError(f"its rotary embedding is of type {model.model.rotary_emb.rope_type}")


def _fused(layer: torch.nn.Module) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    return _Layer(
        norm=_doubled(layer.input_layernorm.weight),
        qkv=_joined(attention.q_proj, attention.k_proj, attention.v_proj),
        q_norm=norms[0].weight if norms[0] is not None else None,
        k_norm=norms[1].weight if norms[1] is not None else None,
        output=Projection(attention.o_proj.weight),
        mlp_norm=_doubled(layer.post_attention_layernorm.weight),
        gate_up=_joined(mlp.gate_proj, mlp.up_proj),
        down=Projection(mlp.down_proj.weight),
    )


def _doubled(weight: Tensor) -> Tensor:
    """An RMSNorm's weight [hidden] as `_normed` takes it [2 * hidden]: nothing of −x is wanted."""
    return torch.cat([weight.data, torch.zeros_like(weight)])


def _joined(*linears: torch.nn.Linear) -> Projection:
    """One weight of all rows; the layers' own become views of it, so that nothing is held twice."""
    joined = torch.cat([linear.weight.data for linear in linears])
    parts = joined.split([linear.out_features for linear in linears])
    for linear, part in zip(linears, parts, strict=True):
        linear.weight = torch.nn.Parameter(part, requires_grad=False)
    return Projection(joined)
