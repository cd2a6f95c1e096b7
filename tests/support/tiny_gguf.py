"""Small random models written as GGUF files with the package gguf, as llama.cpp's converter stores them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from specdec_core.errors import PairUncheckableError
from specdec_core.hub.gguf_files import read_gguf
from tests.support.tiny_models import ARCHITECTURES, tiny_model
from tests.support.tiny_pair import CONTROL, TEMPLATE, byte_level_tokenizer

NAMES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
}
"""GGUF's names of architectures by those of tiny_models."""
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def gguf_model(architecture: str, hidden: int = 64) -> PreTrainedModel:
    """A random model whose rows are whole blocks and whose vocabulary is that of byte_level_tokenizer."""
    model = tiny_model(architecture)
    config = model.config
    for name, value in {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": len(byte_level_tokenizer()),
        "rms_norm_eps": 1e-5,
        "num_attention_heads": 4,
        "head_dim": 16,
    }.items():
        setattr(config, name, value)
    if architecture.startswith("gemma"):
        config.query_pre_attn_scalar = 16
        config.tie_word_embeddings = True  # gguf has no name for another output layer
    if architecture == "gemma3":
        config.layer_types = ["sliding_attention"] * 2  # as the pattern of six layers has it
    torch.manual_seed(0)
    model = type(model)(config).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(5)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    kinds: Mapping[str, GGMLQuantizationType] | GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    further: Mapping[str, object] | None = None,
    left_out: str = "",
    rope_factors: np.ndarray | None = None,
) -> dict[str, torch.Tensor]:
    """Write a model with the tokenizer of tiny_pair. Return its weights by transformers' names as stored.

    `kinds` are the types of matrices by a part of the tensor's name, else one for all. `further` replaces
    metadata, None removes one. `left_out` is a part of names of tensors to leave out.
    """
    config = model.config
    architecture = NAMES[config.model_type.removesuffix("_text")]
    writer = gguf.GGUFWriter(path, architecture)
    metadata: dict[str, object] = {
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.key_length": config.head_dim,
        f"{architecture}.attention.value_length": config.head_dim,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
    }
    if architecture in ("gemma2", "gemma3"):
        metadata[f"{architecture}.attention.sliding_window"] = config.sliding_window
    if architecture == "gemma3":
        metadata[f"{architecture}.rope.freq_base"] = 1_000_000.0
    tokenizer = byte_level_tokenizer()
    metadata |= _tokenizer_metadata(tokenizer) | (further or {})
    for key, value in metadata.items():
        _add(writer, key, value)
    stored = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        gguf_name = _gguf_name(architecture, name)
        if left_out and left_out in gguf_name:
            continue
        data = tensor.numpy()
        if architecture == "llama" and (".attn_q." in gguf_name or ".attn_k." in gguf_name):
            data = _interleaved(data, config.head_dim)
        if architecture.startswith("gemma") and gguf_name.endswith("norm.weight"):
            data = data + 1
        kind = GGMLQuantizationType.F32
        if data.ndim > 1:
            kind = kinds if not isinstance(kinds, Mapping) else _kind(kinds, gguf_name)
        packed = gguf.quantize(data, kind)
        writer.add_tensor(gguf_name, packed, raw_dtype=kind)
        stored[name] = torch.from_numpy(gguf.dequantize(packed, kind).copy())
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", rope_factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def save_gguf(folder: Path, architecture: str = "llama", **options) -> str:
    """Write a tiny model as model.gguf in a folder; return its path."""
    assert architecture in ARCHITECTURES
    folder.mkdir(parents=True, exist_ok=True)
    write_gguf(folder / "model.gguf", gguf_model(architecture), **options)
    return str(folder / "model.gguf")


def _tokenizer_metadata(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    added = tokenizer.added_tokens_decoder
    tokens = [tokenizer.convert_ids_to_tokens(at) for at in range(len(tokenizer))]
    kinds = [
        _NORMAL if at not in added else _CONTROL if added[at].special else _USER_DEFINED
        for at in range(len(tokens))
    ]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index(CONTROL[0]),
        "tokenizer.ggml.eos_token_id": tokens.index(CONTROL[3]),
        "tokenizer.chat_template": TEMPLATE,
    }


def _add(writer: gguf.GGUFWriter, key: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    else:
        assert isinstance(value, float)
        writer.add_float32(key, value)


def _gguf_name(architecture: str, name: str) -> str:
    """The name by gguf's own table, which the converter uses too."""
    kind = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture)
    part, _, suffix = name.rpartition(".")
    mapped = gguf.get_tensor_name_map(kind, 8).get_name(part)
    assert mapped is not None, name
    return f"{mapped}.{suffix}"


def _kind(kinds: Mapping[str, GGMLQuantizationType], name: str) -> GGMLQuantizationType:
    return next((kind for part, kind in kinds.items() if part in name), GGMLQuantizationType.F32)


def _interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of queries or keys in pairs for the rotation, as the converter of Llama models stores them."""
    apart = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(apart.swapaxes(1, 2).reshape(rows.shape))


def refusal(name: str) -> str:
    """Return the error of a file that must be refused."""
    with pytest.raises(PairUncheckableError) as error:
        read_gguf(name)
    return str(error.value)
