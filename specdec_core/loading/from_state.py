"""Models of weights that are in memory already, by transformers' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel


def model_of_state(
    state: Mapping[str, Tensor], options: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return the causal language model of a state, and transformers' loading info.

    `options` are those of transformers' from_pretrained, `config` and `output_loading_info` among them.
    """
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(options["config"])]  # the Auto class wants a name
    return model_class.from_pretrained(None, state_dict=state, **options)
