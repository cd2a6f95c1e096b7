"""The folder that `prepare` writes and `distill` reads: the GGUF's bytes in parts, and `inputs.json`.

Needs neither the gguf package nor a tokenizer, so the machine that distils needs neither.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .gguf_weights import TensorEntry
from .layers import Shape


@dataclass(frozen=True)
class Template:
    """Ids of the chat template around a request and its answer.

    A conversation is `prefix`, the request, `end`, `bridge`, the answer, `end`.
    """

    prefix: list[int]
    bridge: list[int]
    end: int


@dataclass(frozen=True)
class Conversation:
    """Ids of a whole conversation, and the position where its answer starts."""

    ids: list[int]
    answer_start: int


@dataclass(frozen=True)
class Inputs:
    """Everything but the weights' bytes."""

    shape: Shape
    tensors: dict[str, TensorEntry]
    weight_bytes: int
    template: Template
    head_ids: list[int]
    held_out: list[Conversation]

    def write(self, folder: Path) -> None:
        """Write the inputs to a folder, for `read`."""
        (folder / "inputs.json").write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> "Inputs":
        """Read `inputs.json`; ValueError where a held-out conversation does not follow the template."""
        fields = json.loads((folder / "inputs.json").read_text(encoding="utf-8"))
        template = Template(**fields["template"])
        held_out = [Conversation(**each) for each in fields["held_out"]]
        for number, conversation in enumerate(held_out):
            if conversation.ids[: len(template.prefix)] != template.prefix:
                raise ValueError(
                    f"held-out conversation {number} does not begin with the template's prefix: "
                    "run prepare again"
                )
        return cls(
            shape=Shape(**fields["shape"]),
            tensors={name: TensorEntry(**entry) for name, entry in fields["tensors"].items()},
            weight_bytes=fields["weight_bytes"],
            template=template,
            head_ids=fields["head_ids"],
            held_out=held_out,
        )


def write_parts(folder: Path, data: bytes, limit_bytes: int) -> list[Path]:
    """Write `data` as parts of like size, `weights-1.bin` and on, each below `limit_bytes`."""
    for stale in folder.glob("weights-*.bin"):
        stale.unlink()
    count = len(data) // (limit_bytes - 1) + 1
    size = -(-len(data) // count)
    paths = []
    for number in range(count):
        path = folder / f"weights-{number + 1}.bin"
        path.write_bytes(data[number * size : (number + 1) * size])
        paths.append(path)
    return paths


def read_parts(folder: Path, expected_bytes: int) -> np.ndarray:
    """Return the parts' bytes, joined (uint8); ValueError where some are missing."""
    paths = sorted(folder.glob("weights-*.bin"), key=lambda path: int(path.stem.split("-")[1]))
    parts = [np.fromfile(path, np.uint8) for path in paths]
    size = sum(part.size for part in parts)
    if size != expected_bytes:
        raise ValueError(
            f"{folder} has {size:,} bytes of weights in {len(parts)} parts, not {expected_bytes:,}: "
            "copy every weights-*.bin that prepare wrote"
        )
    return np.concatenate(parts)
