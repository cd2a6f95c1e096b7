"""Configuration of a model in a GGUF file, as its config.json has it, and the names of its weights.

Knows the architectures whose metadata say all that transformers needs; refuses the others by name. Reads
headers, never weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .gguf_header import GgufHeader
from .gguf_tokenizer import TURN_ENDS

Values = dict[str, Any]

ROPE_FACTORS = "rope_freqs.weight"
"""Tensor with the divisors of Llama 3's rotary frequencies, which no metadata name."""
HEAD = "output.weight"
"""Tensor of an output layer that is not tied to the embedding."""

_WHOLE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NORM_BEFORE_MLP = {"ffn_norm": "post_attention_layernorm"}
_GEMMA_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_LAYER_NAME = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_WHOLE_NAME = re.compile(r"(\w+)\.(weight|bias)")
_GEMMA2_27B_LAYERS, _GEMMA3_27B_LAYERS = 46, 62
"""Layers of the models that scale attention by their width in place of a head's."""
_DEFAULT_ROPE_BASE = 10_000.0
_NOT_FOLLOWED = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.scale": (0.0,),
    "embedding_scale": (0.0, 1.0),
    "expert_count": (0,),
    "logit_scale": (0.0, 1.0),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "rope.scaling.attn_factor": (0.0, 1.0),
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
}
"""Keys that change a model's computation, and their values without effect."""


class UnsupportedGgufError(ValueError):
    """A GGUF file of a model that cannot be read here. The message is a clause on the file."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture of GGUF. `further` adds its own values to those that all have.

    `interleaved` is True where rows of queries and keys lie in pairs for the rotation, `norms_of_one` where
    norms have 1 added to what transformers stores.
    """

    model_type: str
    model_class: str
    layer: Mapping[str, str]
    further: Callable[[_Metadata], Values]
    interleaved: bool = False
    norms_of_one: bool = False

    def weight_name(self, name: str) -> str | None:
        """Return transformers' name of a tensor; None for one that is no weight of it."""
        if match := _LAYER_NAME.fullmatch(name):
            part = self.layer.get(match[2])
            return None if part is None else f"model.layers.{match[1]}.{part}.{match[3]}"
        match = _WHOLE_NAME.fullmatch(name)
        part = _WHOLE.get(match[1]) if match else None
        return None if part is None or match is None else f"{part}.{match[2]}"


class _Metadata:
    """Metadata of an architecture, by the rest of the key."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header

    def get(self, key: str, default: Any = None) -> Any:
        return self._header.metadata.get(f"{self._header.architecture}.{key}", default)

    def integer(self, key: str) -> int:
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise UnsupportedGgufError(f"has {self._header.architecture}.{key} = {value!r}, not a count")
        return value

    @property
    def head_dim(self) -> int:
        heads, width = self.integer("attention.head_count"), self.integer("embedding_length")
        return self.get("attention.key_length") or width // heads

    def has_tensor(self, name: str) -> bool:
        return name in self._header.tensors


def architecture_of(header: GgufHeader) -> Architecture:
    """Return the architecture. Raises UnsupportedGgufError for another one."""
    found = _ARCHITECTURES.get(header.architecture)
    if found is None:
        raise UnsupportedGgufError(
            f"has a model of the architecture {header.architecture!r}. Read from GGUF are "
            f"{', '.join(_ARCHITECTURES)}; choose the safetensors of the model"
        )
    return found


def configuration(header: GgufHeader) -> Values:
    """Return the values of config.json.

    Raises UnsupportedGgufError for metadata that are incomplete, or that transformers would not follow.
    """
    architecture, metadata = architecture_of(header), _Metadata(header)
    heads, kv_heads = metadata.integer("attention.head_count"), metadata.get("attention.head_count_kv")
    if isinstance(kv_heads, list):
        raise UnsupportedGgufError(f"has attention.head_count_kv by layer: {kv_heads[:4]}")
    for key, neutral in _NOT_FOLLOWED.items():
        if (value := metadata.get(key)) is not None and value not in neutral:
            name = f"{header.architecture}.{key}"
            raise UnsupportedGgufError(f"has {name} = {value!r}, which is not followed here")
    head_dim = metadata.head_dim
    for key, wanted in (("rope.dimension_count", head_dim), ("attention.value_length", head_dim)):
        if metadata.get(key, wanted) != wanted:
            raise UnsupportedGgufError(f"has {key} = {metadata.get(key)!r} in heads of {head_dim}")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2 or not isinstance(tokens, list):
        raise UnsupportedGgufError("has no embedding or no tokens, as a part of a split file or an adapter")
    values: Values = {
        "architectures": [architecture.model_class],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "hidden_size": metadata.integer("embedding_length"),
        "intermediate_size": metadata.integer("feed_forward_length"),
        "num_hidden_layers": metadata.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads or heads,
        "head_dim": head_dim,
        "max_position_embeddings": metadata.integer("context_length"),
        "rms_norm_eps": metadata.get("attention.layer_norm_rms_epsilon", 1e-6),
        "rope_theta": metadata.get("rope.freq_base", _DEFAULT_ROPE_BASE),
        "tie_word_embeddings": HEAD not in header.tensors,
        **_token_ids(header.metadata, tokens),
    }
    if (scaling := _rope_scaling(metadata)) is not None:
        values["rope_scaling"] = scaling
    return values | architecture.further(metadata)


def _token_ids(metadata: Mapping[str, Any], tokens: Sequence[str]) -> Values:
    """Ids of roles. Ends of a turn, by role or by their usual names, end an answer beside the end of text."""

    def role(name: str) -> int | None:
        value = metadata.get(f"tokenizer.ggml.{name}_token_id")
        return value if isinstance(value, int) and 0 <= value < len(tokens) else None

    by_role = [role(name) for name in ("eos", "eot", "eom")]
    by_name = [at for at, token in enumerate(tokens) if token in TURN_ENDS]
    ends = dict.fromkeys(end for end in [*by_role, *by_name] if end is not None)
    values = {"bos_token_id": role("bos"), "eos_token_id": [*ends], "pad_token_id": role("padding")}
    return {key: value for key, value in values.items() if value not in (None, [])}


def _rope_scaling(metadata: _Metadata) -> Values | None:
    kind = metadata.get("rope.scaling.type")
    factor = metadata.get("rope.scaling.factor", metadata.get("rope.scale_linear"))
    if kind in (None, "none") and factor in (None, 0.0, 1.0):
        return None
    if not isinstance(factor, float) or factor <= 0:
        raise UnsupportedGgufError(f"has rope.scaling.type = {kind!r} with the factor {factor!r}")
    if kind in (None, "linear"):
        return {"rope_type": "linear", "factor": factor}
    original = metadata.get("rope.scaling.original_context_length")
    if kind != "yarn" or original is None:
        raise UnsupportedGgufError(f"has rope.scaling.type = {kind!r}, which is not read from GGUF")
    betas = {name: metadata.get(f"rope.scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
    given = {name: value for name, value in betas.items() if value is not None}
    return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **given}


def _llama(metadata: _Metadata) -> Values:
    return {
        "hidden_act": "silu",
        "attention_bias": metadata.has_tensor("blk.0.attn_q.bias"),
        "mlp_bias": metadata.has_tensor("blk.0.ffn_gate.bias"),
    }


def _qwen3(metadata: _Metadata) -> Values:
    return {"hidden_act": "silu", "attention_bias": metadata.has_tensor("blk.0.attn_q.bias")}


def _qwen2(metadata: _Metadata) -> Values:
    if metadata.head_dim * metadata.integer("attention.head_count") != metadata.integer("embedding_length"):
        raise UnsupportedGgufError("has heads that are not as wide together as the hidden states")
    return {"hidden_act": "silu", "use_sliding_window": False}


def _gemma(metadata: _Metadata) -> Values:
    return {"hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh"}


def _scaled_by(metadata: _Metadata, layers_of_27b: int) -> Values:
    """The value that attention is scaled by, which metadata leave out (llama.cpp: f_attention_scale)."""
    wide = metadata.integer("block_count") == layers_of_27b
    width = metadata.integer("embedding_length") // metadata.integer("attention.head_count")
    return {"query_pre_attn_scalar": width if wide else metadata.head_dim}


def _gemma2(metadata: _Metadata) -> Values:
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attn_logit_softcapping": metadata.get("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": metadata.get("final_logit_softcapping", 30.0),
        "sliding_window": metadata.integer("attention.sliding_window"),
        **_scaled_by(metadata, _GEMMA2_27B_LAYERS),
    }


def _gemma3(metadata: _Metadata) -> Values:
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "final_logit_softcapping": metadata.get("final_logit_softcapping"),
        "sliding_window": metadata.integer("attention.sliding_window"),
        "sliding_window_pattern": metadata.get("attention.sliding_window_pattern", 6),
        "rope_local_base_freq": metadata.get("rope.freq_base_swa", _DEFAULT_ROPE_BASE),
        **_scaled_by(metadata, _GEMMA3_27B_LAYERS),
    }


_ARCHITECTURES = {
    "llama": Architecture("llama", "LlamaForCausalLM", _LAYER | _NORM_BEFORE_MLP, _llama, interleaved=True),
    "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _LAYER | _NORM_BEFORE_MLP, _qwen2),
    "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _LAYER | _NORM_BEFORE_MLP, _qwen3),
    "gemma": Architecture("gemma", "GemmaForCausalLM", _LAYER | _NORM_BEFORE_MLP, _gemma, norms_of_one=True),
    "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", _LAYER | _GEMMA_NORMS, _gemma2, norms_of_one=True),
    "gemma3": Architecture(
        "gemma3_text", "Gemma3ForCausalLM", _LAYER | _GEMMA_NORMS, _gemma3, norms_of_one=True
    ),
}
"""Architectures by GGUF's names."""
