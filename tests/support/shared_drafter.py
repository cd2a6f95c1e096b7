"""A drafter's folder without an embedding, made of layers of a target, as training/smollm2 writes it."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from specdec_core.runners.shared_embedding import SHARED_EMBEDDING

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
    tensors = {"head_ids": torch.tensor(list(head_ids), dtype=torch.int32)}
    stored = {"norm.weight": weights["model.norm.weight"], "head": weights["lm_head.weight"][list(head_ids)]}
    for name, weight in weights.items():
        if name.startswith(tuple(f"model.layers.{at}." for at in range(layers))):
            stored[name.removeprefix("model.")] = weight
    for name, weight in stored.items():
        if weight.dim() == 1:
            tensors[name] = weight
            continue
        scale = (weight.abs().amax(1, keepdim=True) / 127).half()
        tensors[name] = (weight / scale.float()).round().clamp(-127, 127).to(torch.int8)
        tensors[f"{name}.scale"] = scale
    half = len(tensors) // 2
    for number, names in enumerate((list(tensors)[:half], list(tensors)[half:]), 1):
        part = {name: tensors[name].contiguous() for name in names}
        save_file(part, folder / f"drafter-{number:05}-of-00002.safetensors")
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
