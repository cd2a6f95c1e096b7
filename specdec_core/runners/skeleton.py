"""Models without weights, on the meta device: their modules, shapes and numbers of parameters."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from .shared_embedding import shared_embedding
from .short_head import ShortHead


def build_skeleton(config: PreTrainedConfig, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Build the causal language model of a configuration. An unchecked one may raise any exception."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        if (shared := shared_embedding(config)) is not None:
            rows = torch.empty(shared.head_rows, config.hidden_size, dtype=model.dtype)
            ids = torch.empty(shared.head_rows, dtype=torch.int64)
            model.set_output_embeddings(ShortHead.of_rows(rows, ids, config.vocab_size))
        return model


def own_parameters(model: PreTrainedModel) -> int:
    """Return the number of parameters, those of an embedding that belongs to another model left out."""
    shared = shared_embedding(model.config) is not None
    embedding: Any = model.get_input_embeddings()
    return model.num_parameters() - (embedding.weight.numel() if shared else 0)


def parameter_count(config: PreTrainedConfig) -> int | None:
    """Return the number of parameters of a configuration's model; None if it describes none."""
    try:
        return own_parameters(build_skeleton(config))
    except Exception:  # the configuration is unchecked
        return None
