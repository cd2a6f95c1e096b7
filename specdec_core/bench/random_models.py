"""Random models for the GPU checks: a small one of each family, and a large one, saved to folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from .shapes import word_tokenizer

VOCAB = 1024
SMALL = {
    "vocab_size": VOCAB,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""Config values of the small models."""
FAMILIES: dict[str, dict[str, int]] = {
    "llama": {},
    "gemma": {},
    # Shorter than the checks' sequences, so that the window has an effect.
    "gemma2": {"sliding_window": 96},
    "qwen2": {},
    "qwen3": {},
}
"""Model types, with config values on top of SMALL."""
LARGE = {
    **SMALL,
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""The sizes of Llama 3.2 1B with a smaller vocabulary."""


def save_random(folder: Path, family: str, shape: Mapping[str, Any], device: torch.device) -> Path:
    """Save a random model with a tokenizer. Return the folder.

    Its next-token distributions are far from uniform. `shape` holds the config's values.
    """
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape, tie_word_embeddings=False)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_output_embeddings().get_parameter("weight").mul_(4)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases that differ from each other
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    word_tokenizer(shape["vocab_size"]).save_pretrained(folder)
    return folder
