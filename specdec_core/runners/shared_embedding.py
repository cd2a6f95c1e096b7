"""Drafters that have no embedding of their own: they read the target's, and have a short output layer.

Reads configurations; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig

SHARED_EMBEDDING = "shared_embedding"
"""Key of config.json with the values of SharedEmbedding."""
_ALIKE = 0.99
"""Least correlation with the embedding that a drafter was trained on: 4 bits keep .995 of a weight."""


@dataclass(frozen=True, slots=True)
class SharedEmbedding:
    """The embedding that a drafter was trained on, of the model `of`, with a `sample` of its values.

    An entry of the sample is (id, column, value). The drafter's output layer has `head_rows` rows.
    """

    of: str
    head_rows: int
    sample: tuple[tuple[int, int, float], ...]

    def is_like(self, embedding: Tensor) -> bool:
        """Return True if embedding [vocab, hidden] has the values of the sample, up to rounding."""
        ids, columns, values = (torch.tensor(part) for part in zip(*self.sample, strict=True))
        if int(ids.max()) >= embedding.shape[0] or int(columns.max()) >= embedding.shape[1]:
            return False
        found = embedding.detach()[ids.to(embedding.device), columns.to(embedding.device)].float().cpu()
        return float(torch.corrcoef(torch.stack([values.float(), found]))[0, 1]) > _ALIKE


def shared_embedding(config: PreTrainedConfig) -> SharedEmbedding | None:
    """Return what a configuration says of the embedding that its model shares; None if it has its own.

    Raises ValueError for values of another form.
    """
    values: Any = getattr(config, SHARED_EMBEDDING, None)
    if values is None:
        return None
    try:
        sample = tuple((int(token), int(column), float(value)) for token, column, value in values["sample"])
        shared = SharedEmbedding(str(values["of"]), int(values["head_rows"]), sample)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{SHARED_EMBEDDING} in its config.json cannot be read ({error!r})") from error
    if not isinstance(values, Mapping) or not sample:
        raise ValueError(f"{SHARED_EMBEDDING} in its config.json has no sample")
    return shared
