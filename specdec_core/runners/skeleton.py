"""Models without weights, on the meta device: their modules, shapes and numbers of parameters."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel


def build_skeleton(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Build the causal language model of a configuration. An unchecked one may raise any exception."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def parameter_count(config: PreTrainedConfig) -> int | None:
    """Return the number of parameters of a configuration's model; None if it describes none."""
    try:
        return build_skeleton(config).num_parameters()
    except Exception:  # the configuration is unchecked
        return None
