"""The two models: their shapes, their fresh weights, their folders as transformers reads them."""

from pathlib import Path
from typing import cast

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .tokenization import BEGIN, END, MAX_LENGTH, PAD, token_ids

LAYERS = 8
HIDDEN = 256
HEAD = 64
SHARD_SIZE = "8500KB"


def make_target(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The target with fresh weights: Llama with grouped heads and tied embeddings."""
    return _make(tokenizer, LAYERS, seed)


def make_drafter(target: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A drafter that starts as the target cut to its embeddings, first layer and last norm.

    One layer, because a Python layer costs more than its arithmetic at this size: two narrower ones
    would draft more slowly.
    """
    drafter = _make(tokenizer, 1, seed=0)
    drafter.load_state_dict(target.state_dict(), strict=False)
    return drafter


def _make(tokenizer: PreTrainedTokenizerFast, layers: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    begin, end, pad = token_ids(tokenizer, BEGIN, END, PAD)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=896,
            num_hidden_layers=layers,
            num_attention_heads=HIDDEN // HEAD,
            num_key_value_heads=2,
            head_dim=HEAD,
            max_position_embeddings=MAX_LENGTH,
            tie_word_embeddings=True,
            bos_token_id=begin,
            eos_token_id=end,
            pad_token_id=pad,
        )
    )


def round_weights(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model as its export will be: every weight rounded to bfloat16, computed with in float32."""
    return cast(LlamaForCausalLM, cast(torch.nn.Module, model).to(torch.bfloat16).float().eval())


def export(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes bfloat16 safetensors in small shards, the configs, the tokenizer and its chat template."""
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    for stale in folder.glob("model*.safetensors*"):
        stale.unlink()
    for key in ("is_local", "local_files_only"):  # how this run found the tokenizer, no property of it
        tokenizer.init_kwargs.pop(key, None)
    cast(torch.nn.Module, model).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(folder)
