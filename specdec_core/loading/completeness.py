"""Comparison of the weights in a checkpoint's files with those of the model that its configuration describes.

A weight without a place is an error like a missing one: a dropped scale, bias or layer changes every answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedConfig

from ..errors import LoadError
from ..hub.stored_quantization import StoredQuantization

_BUFFERS = re.compile(
    r"rotary_emb\.inv_freq$|position_ids$|(attn|attention)\.(masked_)?bias$|(^|[._])mtp(_layers)?[._]"
)
"""Constants that older versions of transformers saved, and layers that predict several tokens at once."""

_CALIBRATION = re.compile(r"\.(([qkv]|input|output|activation)_(scale|global_scale|zero_point))$")
"""Scales of activations and of cached keys and values, which stay in floating point here."""

_MODALITIES = {"vision": ("vision", "visual", "image", "multi_modal", "mm_"), "audio": ("audio", "speech")}
"""Beginnings of the names of modules for other inputs than text, by the name of their configuration."""


def require_complete(
    model: str,
    info: Mapping[str, Any],
    config: PreTrainedConfig,
    stored: StoredQuantization | None,
) -> None:
    """Raise LoadError if weights of `model` are missing, left over or of another shape.

    `info` is the loading info of transformers, which has left out what the model's class declares harmless.
    """
    if missing := sorted(info["missing_keys"]):
        raise LoadError(
            f"{model} lacks {len(missing)} of the weights that its config.json calls for, the first "
            f"being {missing[0]}. The folder is incomplete or its config belongs to another model."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, *shapes = mismatched[0]
        raise LoadError(
            f"{len(mismatched)} weights of {model} have another shape than its config.json says; the "
            f"first is {name}: {' against '.join(str(tuple(s)) for s in shapes)}."
        )
    if leftover := sorted(name for name in info["unexpected_keys"] if not _harmless(name, config, stored)):
        raise LoadError(
            f"{model} has {len(leftover)} weights that its config.json has no place for, the first being "
            f"{leftover[0]}. Without them it would answer otherwise: the config belongs to another model, or "
            "leaves out layers or a quantization_config."
        )


def require_whole_blocks(model: str, folder: str, stored: StoredQuantization) -> None:
    """Raise LoadError for a weight that transformers would dequantize with blocks of another size.

    Its blocks are the weight's size divided by the number of scales; the checkpoint's have the size
    `weight_block_size`, the last one less. Reads the headers of the files only.
    """
    blocks = stored.values.get("weight_block_size")
    if not (stored.dequantized and blocks):
        return
    shapes = dict(_shapes(Path(folder)))
    for name, scales in shapes.items():
        weight = shapes.get(name.removesuffix("_scale_inv"))
        if not name.endswith("_scale_inv") or weight is None or len(scales) < 2:
            continue
        for size, count, block in zip(weight[-2:], scales[-2:], blocks, strict=True):
            if count > 1 and size != count * block:
                raise LoadError(
                    f"The weights of {model} are stored in {stored.method} in blocks of {tuple(blocks)}. "
                    f"transformers cannot dequantize {name.removesuffix('_scale_inv')}, since its shape "
                    f"{tuple(weight)} is no multiple of that. Choose the model that they were quantized from."
                )


def _harmless(name: str, config: PreTrainedConfig, stored: StoredQuantization | None) -> bool:
    if _BUFFERS.search(name) or (stored is not None and _CALIBRATION.search(name)):
        return True
    return _predicts_further(name, config) or _of_another_modality(name, config)


def _predicts_further(name: str, config: PreTrainedConfig) -> bool:
    """Return True for a layer behind the last one that predicts the token after the next (DeepSeek-V3)."""
    text = config.get_text_config(decoder=True)
    layer = re.search(r"\blayers\.(\d+)\.", name)
    extra = getattr(text, "num_nextn_predict_layers", None) or 0
    return layer is not None and 0 <= int(layer[1]) - text.num_hidden_layers < extra


def _of_another_modality(name: str, config: PreTrainedConfig) -> bool:
    """Return True for a weight of an image or audio tower that `config` has a configuration of."""
    modalities = {key.removesuffix("_config") for key in config.sub_configs} - {"text"}
    beginnings = tuple(start for key in modalities for start in _MODALITIES.get(key, (key,)))
    return bool(beginnings) and any(part.startswith(beginnings) for part in name.split(".")[:2])


def _shapes(folder: Path) -> Iterator[tuple[str, list[int]]]:
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (no dict)
                yield name, tensors.get_slice(name).get_shape()
