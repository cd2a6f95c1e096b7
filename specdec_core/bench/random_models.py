"""Small random models of each family, and a large one, in folders: what the GPU checks load."""

from __future__ import annotations

from pathlib import Path

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
FAMILIES = {
    "llama": {},
    "gemma": {},
    # Shorter than what is fed, so that the window matters.
    "gemma2": {"sliding_window": 96},
    "qwen2": {},
    "qwen3": {},
}
LARGE = {
    **SMALL,
    "vocab_size": 32768,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""Llama 3.2 1B but for its vocabulary."""


def save_random(folder: Path, family: str, shape: dict, device: torch.device) -> Path:
    """A random model whose distributions are far from uniform, with a tokenizer, in a folder."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **shape, tie_word_embeddings=False)
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(4)
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms and biases that differ from each other
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    word_tokenizer(shape["vocab_size"]).save_pretrained(folder)
    return folder
