"""Drafters without an embedding: their files, and the model that they make with the target's embedding.

A matrix `NAME` is stored as int8 rows with one scale a row in `NAME.scale`; `head` has the rows of the output
layer and `head_ids` their ids. training/smollm2 writes such files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import LoadError
from ..hub.file_names import DRAFTER_SHARDS
from ..runners.shared_embedding import SharedEmbedding
from ..runners.short_head import ShortHead
from .from_state import model_of_state

_SCALE = ".scale"
_HEAD, _HEAD_IDS = "head", "head_ids"


def read_shared_drafter(
    name: str, folder: Path, shared: SharedEmbedding, target: PreTrainedModel, options: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the drafter `name` with the embedding of `target`, and transformers' loading info.

    `options` are those of transformers' from_pretrained, the configuration and the dtype among them. Raises
    LoadError for files that are missing or damaged, or an embedding that the drafter was not trained on.
    """
    module: Any = target.get_input_embeddings()
    embedding: Tensor = module.weight.data
    if embedding.is_meta or not shared.is_like(embedding):
        reason = "is not in the memory of a device" if embedding.is_meta else "has other values"
        raise LoadError(
            f"{name} reads the embedding of {shared.of}, and the target's {reason}. Choose {shared.of} as "
            "the target, or another drafter."
        )
    stored = _dequantized(_stored(name, folder))
    head, ids = stored.pop(_HEAD, None), stored.pop(_HEAD_IDS, None)
    if head is None or ids is None or not _fits(head, ids, embedding):
        raise LoadError(f"{name} has no output layer that fits its ids. Download or copy its files again.")
    state = {f"model.{key}": tensor for key, tensor in stored.items()}
    state["model.embed_tokens.weight"] = embedding
    model, info = model_of_state(state, options)
    own: Any = model.get_input_embeddings()
    device = own.weight.device
    rows = head.to(device, options["dtype"])
    model.set_output_embeddings(ShortHead.of_rows(rows, ids.to(device), embedding.shape[0]))
    return model, info


def _fits(head: Tensor, ids: Tensor, embedding: Tensor) -> bool:
    """Return True for an output layer with a row for each of its ids, which are different tokens."""
    if head.dim() != 2 or head.shape != (ids.numel(), embedding.shape[1]) or not ids.numel():
        return False
    return bool(ids.min() >= 0) and bool(ids.max() < embedding.shape[0]) and ids.unique().numel() == len(ids)


def _stored(name: str, folder: Path) -> dict[str, Tensor]:
    """The tensors of all files. Raises LoadError if one is missing or damaged."""
    paths = sorted(folder.glob(DRAFTER_SHARDS))
    last = paths[0].stem.rsplit("-", 1)[1] if paths else "1"
    expected = int(last) if last.isdecimal() else 1
    if len(paths) != expected:
        raise LoadError(f"{name} has {len(paths)} of {expected} files {DRAFTER_SHARDS}. Copy all of them.")
    try:
        return {key: tensor for path in paths for key, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise LoadError(f"The weights of {name} are corrupt ({error}). Copy the files again.") from error


def _dequantized(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in float32, scales applied; ids in int64."""
    tensors = {}
    for key, tensor in stored.items():
        if tensor.dtype == torch.int8 and f"{key}{_SCALE}" in stored:
            tensors[key] = tensor.float() * stored[f"{key}{_SCALE}"].float()
        elif not key.endswith(_SCALE):
            tensors[key] = tensor.long() if key == _HEAD_IDS else tensor
    return tensors
