"""Model folders for the gate: config.json and a small tokenizer, no weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>"]
MERGES = [["t", "h"], ["th", "e"], ["Ġ", "the"], ["i", "n"], ["a", "n"], ["n", "d"], ["e", "r"], ["r", "e"]]
LLAMA_MERGES = [["t", "h"], ["th", "e"], ["▁", "the"], ["i", "n"]]


def gpt_like() -> dict[str, Any]:
    """Return the tokenizer.json of a byte-level BPE: 256 bytes, eight merges, three special tokens."""
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet()) + ["".join(merge) for merge in MERGES]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return _tokenizer_json(
        {"type": "BPE", "vocab": vocabulary, "merges": copy.deepcopy(MERGES)},
        pre_tokenizer=byte_level,
        decoder=byte_level,
        added=[_added(content, len(vocabulary) + at) for at, content in enumerate(SPECIAL)],
    )


def llama_like() -> dict[str, Any]:
    """Return the tokenizer.json of a SentencePiece-like BPE with byte fallback."""
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    pieces += ["".join(merge) for merge in LLAMA_MERGES]
    model = {
        "type": "BPE",
        "vocab": {piece: number for number, piece in enumerate(pieces)},
        "merges": copy.deepcopy(LLAMA_MERGES),
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    added = [_added(content, at) for at, content in enumerate(["<unk>", "<s>", "</s>"])]
    return _tokenizer_json(model, pre_tokenizer=metaspace, decoder=metaspace, added=added)


def write_model(
    folder: Path,
    tokenizer: dict[str, Any] | None = None,
    *,
    config: dict[str, Any] | None = None,
    tokenizer_config: dict[str, Any] | None = None,
) -> Path:
    """Write config.json, tokenizer.json and tokenizer_config.json; given keys replace the defaults.

    A folder named target has a model of two layers, any other of one: a drafter is smaller.
    """
    tokenizer = gpt_like() if tokenizer is None else tokenizer
    folder.mkdir(parents=True)
    width = (
        max([*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])])
        + 1
    )
    values = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": width,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2 if folder.name == "target" else 1,
    }
    classes = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
    }
    write_json(folder / "config.json", values | (config or {}))
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", classes | (tokenizer_config or {}))
    return folder


def write_json(path: Path, values: object) -> None:
    """Write values as a JSON file."""
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _tokenizer_json(
    model: dict[str, Any],
    *,
    pre_tokenizer: dict[str, Any],
    decoder: dict[str, Any],
    added: list[dict[str, Any]],
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _added(content: str, token_id: int) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content, **flags}
