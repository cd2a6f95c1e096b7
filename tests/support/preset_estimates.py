"""Prints the memory and the speedup that the presets' descriptions name, from the models' shapes alone.

    python -m tests.support.preset_estimates
    python -m tests.support.preset_estimates --short 65536 --share 0.98 0.75    # with short output layers

The shapes are those of the published configurations. c is estimated as the bytes of weights that a drafter
step reads over those that a target step reads, in NF4, without the rows that a preset's `drafter_vocabulary`
leaves out; the speedup is Leviathan et al. 2023, theorem 3.8, at the best gamma, with v = 1. Nothing here is
measured.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from transformers import (
    Gemma2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.utils import logging

from specdec_core.loading.memory import memory_need, weights_bytes
from specdec_core.loading.weights import ModelSource, skeleton
from specdec_core.presets import get_preset


def _config(kind: type[PreTrainedConfig], sizes: str, **more) -> PreTrainedConfig:
    """`sizes`: vocabulary, hidden, intermediate, layers, heads, kv heads."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
             "num_attention_heads", "num_key_value_heads")  # fmt: skip
    return kind(
        **dict(zip(names, map(int, sizes.split()), strict=True)), max_position_embeddings=8192, **more
    )


ALPHA = 0.7
"""Acceptance rate with a whole output layer."""
UNTIED, TIED = {"tie_word_embeddings": False}, {"tie_word_embeddings": True}
PAIRS = {
    "qwen3": (
        _config(Qwen3Config, "151936 4096 12288 36 32 8", head_dim=128, **UNTIED),
        _config(Qwen3Config, "151936 1024 3072 28 16 8", head_dim=128, **TIED),
    ),
    "smollm2": (
        _config(LlamaConfig, "49152 2048 8192 24 32 32", **TIED),
        _config(LlamaConfig, "49152 576 1536 30 9 3", **TIED),
    ),
    "gemma-2": (
        _config(Gemma2Config, "256000 3584 14336 42 16 8", head_dim=256),
        _config(Gemma2Config, "256000 2304 9216 26 8 4", head_dim=256),
    ),
    "llama-3.1": (
        _config(LlamaConfig, "128256 4096 14336 32 32 8", **UNTIED),
        _config(LlamaConfig, "128256 2048 8192 16 32 8", **TIED),
    ),
    "llama-3.2": (
        _config(LlamaConfig, "128256 3072 8192 28 24 8", **TIED),
        _config(LlamaConfig, "128256 2048 8192 16 32 8", **TIED),
    ),
    "qwen2.5": (
        _config(Qwen2Config, "152064 3584 18944 28 28 4", **UNTIED),
        _config(Qwen2Config, "151936 896 4864 24 14 2", **TIED),
    ),
}


def memory_gb(folder: str, device: str, quantization: str) -> float:
    """Memory that a pair in `folder` needs, head room and the cache of one long conversation included."""
    sources = [ModelSource(f"{folder}/{at}", quantization=quantization) for at in range(2)]
    return memory_need(sources, torch.device(device)).total_bytes / 1e9


def bytes_read(model: PreTrainedModel, vocabulary: int | None = None) -> int:
    """By a one-row step: all weights but an embedding that is not the output layer too, and the rows of the
    output layer beyond `vocabulary`.
    """
    embedding = model.get_input_embeddings().weight
    tied = embedding is model.get_output_embeddings().weight
    rows, hidden = embedding.shape
    unread = 0 if vocabulary is None else max(0, rows - vocabulary) * hidden
    return weights_bytes(model, "nf4") - 2 * (unread + (0 if tied else embedding.numel()))


def speedup(alpha: float, c: float) -> tuple[float, int]:
    """The largest there is, and its gamma."""
    return max(((1 - alpha ** (g + 1)) / ((1 - alpha) * (g * c + 1)), g) for g in range(17))


def skeletons(folder: str) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Target and drafter of a pair in `folder`, without weights."""
    device = torch.device("cuda")
    return skeleton(ModelSource(f"{folder}/0"), device), skeleton(ModelSource(f"{folder}/1"), device)


def need_line(name: str, folder: str) -> str:
    """The memory and the speedup of a preset as it ships."""
    target, drafter = skeletons(folder)
    sizes = {kind: memory_gb(folder, "cuda", kind) for kind in ("nf4", "int8", "none")}
    sizes["cpu"] = memory_gb(folder, "cpu", "none")
    c = bytes_read(drafter, get_preset(name).drafter_vocabulary) / bytes_read(target)
    best, gamma = speedup(ALPHA, c)
    shown = ", ".join(f"{kind} {size:.1f} GB" for kind, size in sizes.items())
    return f"{name}: {shown}; c {c:.2f}, at alpha {ALPHA} {best:.2f}x with gamma {gamma}"


def short_line(name: str, folder: str, rows: int, shares: Sequence[float]) -> str:
    """The speedup with an output layer of `rows` over that with the whole one, by the share of a text's
    tokens that the short one knows.
    """
    target, drafter = skeletons(folder)
    whole, short = (bytes_read(drafter, size) / bytes_read(target) for size in (None, rows))
    before, _ = speedup(ALPHA, whole)
    gains = ", ".join(f"{share:.1%} {speedup(ALPHA * share, short)[0] / before:.2f}" for share in shares)
    return f"{name}: c {whole:.2f}, with {rows:,} rows {short:.2f}; by share: {gains}"


def main() -> None:
    """Print a line a pair."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.preset_estimates")
    parser.add_argument(
        "--short",
        type=int,
        metavar="ROWS",
        help="compare an output layer of that many rows, where there are more",
    )
    parser.add_argument("--share", type=float, nargs="+", default=[1.0], help="shares of known tokens")
    options = parser.parse_args()
    logging.set_verbosity_error()
    for name, configs in PAIRS.items():
        if options.short is not None and options.short >= configs[1].vocab_size:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for at, config in enumerate(configs):
                config.save_pretrained(f"{folder}/{at}")
            if options.short is None:
                print(need_line(name, folder))
            else:
                print(short_line(name, folder, options.short, options.share))


if __name__ == "__main__":
    main()
