"""Models without weights, on the meta device: their modules, shapes and numbers of parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

_MOST_MODULES = 10_000
"""More layers or experts than any published model has; a configuration may name any number."""


def build_skeleton(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Build the causal language model of a configuration. An unchecked one may raise any exception."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def parameter_count(config: PreTrainedConfig) -> int | None:
    """Return the number of parameters of a configuration's model; None if it describes none."""
    if any(count > _MOST_MODULES for count in _module_counts(config)):
        return None
    try:
        return build_skeleton(config).num_parameters()
    except Exception:  # the configuration is unchecked
        return None


def _module_counts(config: PreTrainedConfig) -> Iterator[int]:
    """Yield the numbers of layers and experts in a configuration and the ones inside it."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            yield from _module_counts(value)
        elif isinstance(value, int) and ("layer" in name or "expert" in name):
            yield value
