"""Comparison of the weights in a checkpoint's files with those of the model that its configuration describes.

A weight without a place is an error like a missing one: a dropped scale, bias or layer changes every answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from ..errors import LoadError
from ..hub.stored_quantization import StoredQuantization
from ..units import counted

BUFFERS = re.compile(
    r"rotary_emb\.inv_freq$|position_ids$|(^|\.)(self_)?(attn|attention)\.(masked_)?bias$"
    r"|(^|[._])mtp(_layers)?[._]"
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
            f"{model} lacks {counted(len(missing), 'weight')} that its config.json calls for, the first "
            f"being {missing[0]}. The folder is incomplete or its config belongs to another model."
        )
    if mismatched := sorted(info["mismatched_keys"]):
        name, *shapes = mismatched[0]
        raise LoadError(
            f"{model} has {counted(len(mismatched), 'weight')} of another shape than its config.json says; "
            f"the first is {name}: {' against '.join(str(tuple(s)) for s in shapes)}."
        )
    if leftover := sorted(name for name in info["unexpected_keys"] if not _harmless(name, config, stored)):
        raise LoadError(
            f"{model} has {counted(len(leftover), 'weight')} that its config.json has no place for, the "
            f"first being {leftover[0]}. Without them it would answer otherwise: the config belongs to "
            "another model, or leaves out layers or a quantization_config."
        )


def _harmless(name: str, config: PreTrainedConfig, stored: StoredQuantization | None) -> bool:
    if BUFFERS.search(name) or (stored is not None and _CALIBRATION.search(name)):
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
