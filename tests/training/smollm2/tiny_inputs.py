"""A tiny random SmolLM2 as GGUF bytes, and the folder that `prepare` would write for it."""

from pathlib import Path

import numpy as np
import torch

from training.smollm2.gguf_weights import GgufWeights, TensorEntry
from training.smollm2.inputs import Conversation, Inputs, Template, write_parts
from training.smollm2.layers import Shape
from training.smollm2.target import Target

SHAPE = Shape(
    hidden=64, layers=3, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=160, eps=1e-5, theta=10000.0
)
TEMPLATE = Template(prefix=[1, 9, 11], bridge=[4, 5], end=2)
HEAD_IDS = list(range(0, 160, 2))


def q8_0(weights: np.ndarray) -> bytes:
    """Encode as Q8_0: the scale as float16, then 32 int8."""
    blocks = weights.reshape(-1, 32)
    scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
    values = np.round(blocks / scale.astype(np.float32)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8), values.view(np.uint8)], 1).tobytes()


def q4_1(weights: np.ndarray) -> bytes:
    """Encode as Q4_1: scale and minimum as float16, then 16 bytes of two values each."""
    blocks = weights.reshape(-1, 32)
    least = blocks.min(1, keepdims=True).astype(np.float16)
    scale = ((blocks.max(1, keepdims=True) - least) / 15).astype(np.float16)
    levels = np.round((blocks - least) / scale.astype(np.float32)).clip(0, 15).astype(np.uint8)
    packed = levels[:, :16] | levels[:, 16:] << 4
    return np.concatenate([scale.view(np.uint8), least.view(np.uint8), packed], 1).tobytes()


def gguf_weights() -> tuple[bytes, dict[str, TensorEntry]]:
    """Return the bytes and the table of tensors; matrices have the types of the real file."""
    rng = np.random.default_rng(5)
    queries, keys, values = SHAPE.qkv_rows
    shapes = {"token_embd.weight": [SHAPE.vocab, SHAPE.hidden], "output_norm.weight": [SHAPE.hidden]}
    for index in range(SHAPE.layers):
        shapes |= {
            f"blk.{index}.attn_norm.weight": [SHAPE.hidden],
            f"blk.{index}.attn_q.weight": [queries, SHAPE.hidden],
            f"blk.{index}.attn_k.weight": [keys, SHAPE.hidden],
            f"blk.{index}.attn_v.weight": [values, SHAPE.hidden],
            f"blk.{index}.attn_output.weight": [SHAPE.hidden, queries],
            f"blk.{index}.ffn_norm.weight": [SHAPE.hidden],
            f"blk.{index}.ffn_gate.weight": [SHAPE.ffn, SHAPE.hidden],
            f"blk.{index}.ffn_up.weight": [SHAPE.ffn, SHAPE.hidden],
            f"blk.{index}.ffn_down.weight": [SHAPE.hidden, SHAPE.ffn],
        }
    data, entries = b"header", {}  # tensors do not start at the first byte, nor aligned
    for name, shape in shapes.items():
        if len(shape) == 1:
            kind, raw = "F32", (1 + 0.1 * rng.standard_normal(shape)).astype(np.float32).tobytes()
        else:
            weights = rng.standard_normal(shape) * (0.2 if name.startswith("token") else shape[1] ** -0.5)
            kind = "Q8_0" if name.startswith("token") else "Q4_1"
            raw = (q8_0 if kind == "Q8_0" else q4_1)(weights.astype(np.float32))
        entries[name] = TensorEntry(kind, shape, len(data), len(raw))
        data += raw
    return data, entries


def tiny_target(positions: int = 96) -> Target:
    """Return the random target in float32 on the CPU."""
    data, entries = gguf_weights()
    weights = GgufWeights(torch.from_numpy(np.frombuffer(data, np.uint8).copy()), entries)
    return Target.load(weights, SHAPE, positions, torch.float32)


def tiny_conversations(count: int, seed: int) -> list[Conversation]:
    """Return random conversations of different lengths that follow the template."""
    rng = np.random.default_rng(seed)
    conversations = []
    for _ in range(count):
        request = rng.integers(12, 160, rng.integers(5, 12)).tolist()
        start = [*TEMPLATE.prefix, *request, TEMPLATE.end, *TEMPLATE.bridge]
        answer = rng.integers(12, 160, rng.integers(10, 40)).tolist()
        conversations.append(Conversation([*start, *answer, TEMPLATE.end], len(start)))
    return conversations


def write_inputs(folder: Path, part_bytes: int = 40_000) -> Inputs:
    """Write the folder and return what `inputs.json` holds."""
    folder.mkdir(parents=True, exist_ok=True)
    data, entries = gguf_weights()
    inputs = Inputs(SHAPE, entries, len(data), TEMPLATE, HEAD_IDS, tiny_conversations(12, seed=3))
    inputs.write(folder)
    write_parts(folder, data, part_bytes)
    return inputs
