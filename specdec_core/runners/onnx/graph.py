"""ONNX graphs of the forward of the Llama, Qwen and Gemma families, for ONNX Runtime's CPU kernels.

One graph serves every number of rows. A layer's keys and values lie in buffers that are past and present at
once; the number of positions that they hold is an input, so that rewinding a cache costs nothing. Knows
nothing of sessions, text or sampling.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, TensorProto
from torch import Tensor
from transformers import PreTrainedModel

from ...onnx_runtime.builder import CONTRIB, GraphBuilder
from ..base import Format
from ..lean_forward import LayerNorms, UnsupportedError, joined, layer_norms
from ..short_head import ShortHead
from .blocks import BLOCK, Int8Blocks, int8_blocks
from .families import FULL, SLIDING
from .products import HEAD_PRODUCTS, PRODUCTS, int8_block_product, linear

IDS = "ids"
"""int64 [1, rows]."""
LAST_POSITION = "last_position"
"""int32 [1]: the last position after the forward."""
POSITIONS = "positions"
"""int32 []: positions after the forward."""
KEPT_ROWS = "kept_rows"
"""int64 [kept]: the rows whose logits are computed."""
ATTENTION_ROWS = "attention_rows"
"""int64 [rows or more]: the rows that attention computes: all, or a single one twice.

The second key and value of that one are stored after the first, and the next forward overwrites them.
"""
OWN_ROWS = "own_rows"
"""int64 [1]: the number of rows."""
LOGITS = "logits"
"""float32 [1, kept, vocab]."""


def rope_names(kind: str) -> tuple[str, str]:
    """Names of the inputs cos and sin, float32 [positions, head_dim / 2], for layers of this kind."""
    return f"cos.{kind}", f"sin.{kind}"


def state_names(layer: int) -> tuple[tuple[str, str], tuple[str, str]]:
    """Names (input, output) of a layer's keys and its values, float32 [1, kv_heads, capacity, head_dim]."""
    return (f"past_key.{layer}", f"key.{layer}"), (f"past_value.{layer}", f"value.{layer}")


@dataclass(frozen=True, slots=True)
class ForwardGraph:
    """A model's forward: the graph, its weights, which are not copied into it, and the embedding's tensors,
    which are inputs of each run: ONNX Runtime may copy constants, but not inputs.

    `rope_kinds` are the kinds of layers with a rotation of their own.
    """

    proto: ModelProto
    weights: Mapping[str, Tensor]
    embedding: Mapping[str, Tensor]
    layers: int
    kv_heads: int
    head_dim: int
    rope_kinds: tuple[str, ...]


def build_forward(
    model: PreTrainedModel,
    vocab_size: int,
    weights: Format = "float32",
    *,
    finer: Collection[str] = (),
    frees: bool = False,
) -> ForwardGraph:
    """Return the graph of a float32 model on the CPU, its logits cut to `vocab_size`, its products with
    weights in that format; in 8 bits in place of 4 for modules whose names are among the `finer`. `frees`
    frees the model's own weights as soon as they are quantized.

    The model has passed `require_supported`. Raises UnsupportedError for modules of other kinds.
    """
    return _Forward(model, vocab_size, weights, finer, frees).build()


class _Forward:
    def __init__(
        self,
        model: PreTrainedModel,
        vocab_size: int,
        weights: Format,
        finer: Collection[str],
        frees: bool,
    ) -> None:
        # Attributes of transformers' modules are dynamic.
        config: Any = model.config
        self.config = config
        self.body: Any = model.model
        self.head: Any = model.get_output_embeddings()
        self.vocab_size = vocab_size
        self.gemma: bool = config.model_type.startswith("gemma")
        kinds = getattr(config, "layer_types", None) or [FULL] * len(self.body.layers)
        self.kinds: list[str] = list(kinds)
        attention = self.body.layers[0].self_attn
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = attention.head_dim
        rotary = self.body.rotary_emb
        self.rope_kinds = tuple(sorted(set(kinds))) if isinstance(rotary.rope_type, dict) else (FULL,)
        self.quantized = weights != "float32"
        self.frees = frees
        self.product, self.head_product = PRODUCTS[weights], HEAD_PRODUCTS[weights]
        fine = finer if weights == "int4" else ()
        self.finer = {module for name, module in model.named_modules() if name in fine}
        self.embedding: dict[str, Tensor] = {}
        self.embedding_blocks: Int8Blocks | None = None
        self.graph = GraphBuilder()

    def build(self) -> ForwardGraph:
        graph = self.graph
        graph.input(IDS, TensorProto.INT64, [1, "rows"])
        graph.input(LAST_POSITION, TensorProto.INT32, [1])
        graph.input(POSITIONS, TensorProto.INT32, [])
        graph.input(KEPT_ROWS, TensorProto.INT64, ["kept"])
        graph.input(ATTENTION_ROWS, TensorProto.INT64, ["attention_rows"])
        graph.input(OWN_ROWS, TensorProto.INT64, [1])
        for kind in self.rope_kinds:
            for name in rope_names(kind):
                graph.input(name, TensorProto.FLOAT, ["rotations", self.head_dim // 2])
        x = self._embedded()
        added = None  # what the last block adds to x
        for at, layer in enumerate(self.body.layers):
            x, added = self._layer(at, layer, x, added)
        _, normed = self._add_and_norm("norm", x, added, self.body.norm)
        self._logits(graph.node("Gather", [normed, KEPT_ROWS], "kept", axis=1))
        if self.frees:
            _free(self.body.embed_tokens, self.head)
        return ForwardGraph(
            proto=graph.model(),
            weights=graph.weights,
            embedding=self.embedding,
            layers=len(self.body.layers),
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            rope_kinds=self.rope_kinds,
        )

    def _embedded(self) -> str:
        """The rows of the embedding [1, rows, hidden]."""
        weight = self.body.embed_tokens.weight.data
        if self.quantized and weight.shape[1] % BLOCK == 0:
            x = self._embedded_blocks(weight)
        else:
            self.embedding["embedding"] = weight
            self.graph.input("embedding", TensorProto.FLOAT, list(weight.shape))
            x = self.graph.node("Gather", ["embedding", IDS], "embedded", axis=0)
        if not self.gemma:
            return x
        scale = self.graph.constant("embedding_scale", self.config.hidden_size**0.5, np.float32)
        return self.graph.node("Mul", [x, scale], "embedded_scaled")

    def _embedded_blocks(self, weight: Tensor) -> str:
        graph = self.graph
        self.embedding_blocks = blocks = int8_blocks(weight)
        for name, tensor, kind in (
            ("codes", blocks.codes, TensorProto.UINT8),
            ("scales", blocks.scales[..., None], TensorProto.FLOAT),
        ):
            self.embedding[f"embedding.{name}"] = tensor
            graph.input(f"embedding.{name}", kind, list(tensor.shape))
            graph.node("Gather", [f"embedding.{name}", IDS], f"embedded.{name}", axis=0)
        codes = graph.node("Cast", ["embedded.codes"], "embedded.numbers", to=TensorProto.FLOAT)
        zero = graph.constant("zero_point", 128, np.float32)
        centred = graph.node("Sub", [codes, zero], "embedded.centred")
        scaled = graph.node("Mul", [centred, "embedded.scales"], "embedded.blocks")  # [1, rows, blocks, 32]
        shape = graph.constant("hidden", [0, 0, weight.shape[1]], np.int64)
        return graph.node("Reshape", [scaled, shape], "embedded")

    def _layer(self, at: int, layer: Any, x: str, added: str | None) -> tuple[str, str]:
        """Add the nodes of a layer; return the stream before its MLP, and what that adds to it."""
        norms = layer_norms(layer)
        name = f"layer.{at}"
        x, normed = self._add_and_norm(f"{name}.attention_norm", x, added, norms.attention)
        mixed = self._attention(f"{name}.attention", at, layer.self_attn, norms, normed)
        out = self._product(f"{name}.output", mixed, layer.self_attn.o_proj)
        if norms.attention_output is not None:
            out = self._norm(f"{name}.output_norm", out, norms.attention_output)
        x, normed = self._add_and_norm(f"{name}.mlp_norm", x, out, norms.mlp)
        gate_up = self._product(f"{name}.gate_up", normed, layer.mlp.gate_proj, layer.mlp.up_proj)
        up = f"{name}.up"
        gate = self.graph.node("Split", [gate_up], f"{name}.gate", also=[up], axis=-1, num_outputs=2)
        active = self._activation(f"{name}.active", layer.mlp.act_fn, gate)
        inner = self.graph.node("Mul", [active, up], f"{name}.inner")
        out = self._product(f"{name}.down", inner, layer.mlp.down_proj)
        if norms.mlp_output is not None:
            out = self._norm(f"{name}.down_norm", out, norms.mlp_output)
        return x, out

    def _attention(self, name: str, at: int, attention: Any, norms: LayerNorms, x: str) -> str:
        """[1, rows, hidden] → [1, rows, heads * head_dim]."""
        graph, heads, kv_heads, head_dim = self.graph, self.heads, self.kv_heads, self.head_dim
        qkv = self._product(f"{name}.qkv", x, attention.q_proj, attention.k_proj, attention.v_proj)
        qkv = graph.node("Gather", [qkv, ATTENTION_ROWS], f"{name}.qkv_rows", axis=1)
        q, k, v = qkv, "", ""
        if norms.query is not None:
            widths = [heads * head_dim, kv_heads * head_dim, kv_heads * head_dim]
            sizes = graph.constant("qkv_widths", widths, np.int64)
            k, v = f"{name}.k", f"{name}.v"
            q = graph.node("Split", [qkv, sizes], f"{name}.q", also=[k, v], axis=-1)
            q = self._head_norm(f"{name}.q_norm", q, norms.query, heads)
            k = self._head_norm(f"{name}.k_norm", k, norms.key, kv_heads)
        states = state_names(at)
        shape = [1, kv_heads, "capacity", head_dim]
        for past, present in states:
            graph.input(past, TensorProto.FLOAT, shape)
            graph.output(present, TensorProto.FLOAT, shape)
        (past_key, key), (past_value, value) = states
        kind = self.kinds[at]
        cos, sin = rope_names(kind if kind in self.rope_kinds else FULL)
        softcap = getattr(self.config, "attn_logit_softcapping", None) or 0.0
        window = self.config.sliding_window if kind == SLIDING else None
        mixed = graph.node(
            "GroupQueryAttention",
            [q, k, v, past_key, past_value, LAST_POSITION, POSITIONS, cos, sin],
            f"{name}.mixed",
            also=[key, value],
            domain=CONTRIB,
            num_heads=heads,
            kv_num_heads=kv_heads,
            scale=float(attention.scaling),
            softcap=float(softcap),
            local_window_size=-1 if window is None else int(window),
            do_rotary=1,
            rotary_interleaved=0,
        )
        start = graph.constant("start", [0], np.int64)
        axis = graph.constant("axis_1", [1], np.int64)
        return graph.node("Slice", [mixed, start, OWN_ROWS, axis], name)

    def _head_norm(self, name: str, x: str, module: Any, heads: int) -> str:
        """RMSNorm of each head: [1, rows, heads * head_dim] → the same."""
        apart = self.graph.constant(f"apart_{heads}", [0, 0, heads, self.head_dim], np.int64)
        joined = self.graph.constant(f"joined_{heads}", [0, 0, heads * self.head_dim], np.int64)
        x = self.graph.node("Reshape", [x, apart], f"{name}.apart")
        x = self._norm(name, x, module)
        return self.graph.node("Reshape", [x, joined], f"{name}.joined")

    def _norm_weight(self, name: str, module: Any) -> str:
        weight = module.weight.data
        return self.graph.weight(f"{name}.weight", weight + 1 if self.gemma else weight)

    def _norm(self, name: str, x: str, module: Any) -> str:
        weight = self._norm_weight(name, module)
        epsilon = float(self.config.rms_norm_eps)
        return self.graph.node("SimplifiedLayerNormalization", [x, weight], name, axis=-1, epsilon=epsilon)

    def _add_and_norm(self, name: str, x: str, added: str | None, module: Any) -> tuple[str, str]:
        """Return the sum of both, and its RMSNorm."""
        if added is None:
            return x, self._norm(name, x, module)
        weight = self._norm_weight(name, module)
        total = f"{name}.sum"
        normed = self.graph.node(
            "SkipSimplifiedLayerNormalization",
            [x, added, weight],
            name,
            also=["", "", total],
            domain=CONTRIB,
            epsilon=float(self.config.rms_norm_eps),
        )
        return total, normed

    def _activation(self, name: str, module: Any, x: str) -> str:
        kind = type(module).__name__
        if kind in ("SiLUActivation", "SiLU"):
            return self.graph.node("QuickGelu", [x], name, domain=CONTRIB, alpha=1.0)
        if kind == "GELUTanh":
            return self.graph.node("Gelu", [x], name, approximate="tanh")
        if kind == "GELUActivation":
            return self.graph.node("Gelu", [x], name)
        raise UnsupportedError(f"its activation is {kind}")

    def _product(self, name: str, x: str, *modules: Any) -> str:
        """x [1, rows, in] → the outputs of linear layers side by side [1, rows, out]."""
        for module in modules:
            if not isinstance(module, torch.nn.Linear):
                raise UnsupportedError(f"its {name} is a {type(module).__name__}")
        weight, bias = joined(modules)
        product = self.product if self.finer.isdisjoint(modules) else PRODUCTS["int8"]
        out = linear(self.graph, product, name, x, weight, bias)
        if self.frees:
            _free(*modules)
        return out

    def _logits(self, x: str) -> None:
        graph, head = self.graph, self.head
        shape = [1, "kept", self.vocab_size]
        softcap = getattr(self.config, "final_logit_softcapping", None)
        last = "capped" if softcap is not None else LOGITS
        if isinstance(head, ShortHead):
            self._short_logits(x, head, last)
        else:
            bias = None if head.bias is None else head.bias.data[: self.vocab_size]
            linear(graph, self._whole_head, last, x, head.weight.data[: self.vocab_size], bias)
        if softcap is not None:
            cap = graph.constant("final_cap", softcap, np.float32)
            scaled = graph.node("Div", [last, cap], "logits_scaled")
            bounded = graph.node("Tanh", [scaled], "logits_bounded")
            graph.node("Mul", [bounded, cap], LOGITS)
        graph.output(LOGITS, TensorProto.FLOAT, shape)

    def _whole_head(self, graph: GraphBuilder, name: str, x: str, weight: Tensor) -> str:
        """See Product. A head in 8 bits that is tied to the embedding has its blocks."""
        tied = weight.data_ptr() == self.body.embed_tokens.weight.data_ptr()
        if tied and self.embedding_blocks is not None:
            return int8_block_product(graph, name, x, self.embedding_blocks.first(weight.shape[0]))
        return self.head_product(graph, name, x, weight)

    def _short_logits(self, x: str, head: ShortHead, name: str) -> None:
        """Logits of the rows that a short head keeps, -inf elsewhere."""
        graph = self.graph
        kept = head.kept_ids()
        count = int((kept < self.vocab_size).sum())  # they ascend
        kept, bias = kept[:count], head.kept_bias()
        bias = None if bias is None else bias[:count]
        short = linear(graph, self.head_product, "short_logits", x, head.kept_weight()[:count], bias)
        # Every id that is left out is gathered from one more column, of -inf.
        pads = graph.constant("one_column", [0, 0, 0, 0, 0, 1], np.int64)
        nothing = graph.constant("minus_infinity", -np.inf, np.float32)
        padded = graph.node("Pad", [short, pads, nothing], "padded_logits")
        places = torch.full((self.vocab_size,), len(kept), dtype=torch.int64)
        places[kept] = torch.arange(len(kept))
        graph.node("Gather", [padded, graph.weight("places", places)], name, axis=2)


def _free(*modules: torch.nn.Module) -> None:
    """Put the weights of modules on the meta device; those that are tied stay so."""
    empty: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for module in modules:
        for child in module.modules():
            for name, parameter in list(child.named_parameters(recurse=False)):
                if parameter not in empty:
                    empty[parameter] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
                setattr(child, name, empty[parameter])
