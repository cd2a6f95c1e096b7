"""A one-layer model whose next token is a function of the last one, on any tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

_WIDTH = 128


def save_chain(
    folder: Path,
    tokenizer: PreTrainedTokenizerBase,
    successors: Mapping[int, int],
    default: int,
    *,
    config_eos: int | None = None,
    generation_eos: int | None = None,
) -> str:
    """Write model and tokenizer; `successors` maps an id to the next one, `default` follows all others.

    The files name the EOS ids that are given, and no others. Returns the folder's path.
    """
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=_WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(torch.randn(vocabulary, _WIDTH), dim=-1)
        embeddings[:, 0] = 0.5
        embeddings = torch.nn.functional.normalize(embeddings, dim=-1)
        layer = model.model.layers[0]
        model.model.embed_tokens.weight.copy_(embeddings)
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        model.lm_head.weight.zero_()
        model.lm_head.weight[default, 0] = 6.0
        for token_id, successor in successors.items():
            model.lm_head.weight[successor] += 5 * embeddings[token_id]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _name_eos(folder / "config.json", config_eos)
    _name_eos(folder / "generation_config.json", generation_eos)
    return str(folder)


def _name_eos(path: Path, eos_id: int | None) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values.pop("eos_token_id", None)
    named = {} if eos_id is None else {"eos_token_id": eos_id}
    path.write_text(json.dumps(values | named), encoding="utf-8")
