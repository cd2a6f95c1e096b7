"""A drafter's folder without an embedding, made of layers of a target, as training/smollm2 writes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from specdec_core.runners.shared_embedding import SHARED_EMBEDDING
from training.smollm2.shards import HEAD_IDS, quantize, write_shards

SAMPLED = 32


def save_shared_drafter(
    target: str, folder: Path, *, layers: int = 1, head_ids: range = range(0, 300, 2), **changed
) -> str:
    """Write a drafter of a Llama target's first layers, its output layer cut to some ids. Returns its path.

    `changed` replaces values of `shared_embedding`.
    """
    folder.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(target)
    weights = model.state_dict()
    tensors = {
        HEAD_IDS: torch.tensor(list(head_ids)),
        "norm.weight": weights["model.norm.weight"],
        "head": weights["lm_head.weight"][list(head_ids)],
    }
    for name, weight in weights.items():
        if name.startswith(tuple(f"model.layers.{at}." for at in range(layers))):
            tensors[name.removeprefix("model.")] = weight
    stored = quantize(tensors)
    write_shards(folder, stored, 6 * sum(tensor.nbytes for tensor in stored.values()) // 10, {})
    embedding = weights["model.embed_tokens.weight"]
    places = [((7 * at) % embedding.shape[0], (5 * at) % embedding.shape[1]) for at in range(SAMPLED)]
    shared = {
        "of": "owner/target",
        "head_rows": len(head_ids),
        "sample": [[row, column, float(embedding[row, column])] for row, column in places],
    }
    values = json.loads(Path(target, "config.json").read_text())
    values |= {"num_hidden_layers": layers, "tie_word_embeddings": True, SHARED_EMBEDDING: shared | changed}
    (folder / "config.json").write_text(json.dumps(values))
    AutoTokenizer.from_pretrained(target).save_pretrained(folder)
    return str(folder)
