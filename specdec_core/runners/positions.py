"""Positions of a model: the number that its configuration names, and where its rotation changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

UNBOUNDED_CONTEXT = 2048
"""Context length of models whose configuration names none (BLOOM, Mamba): that of the published ones."""

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "model_max_length",
    "seq_length",
    "max_target_positions",
    "context_length",
)


def context_length(config: PreTrainedConfig) -> int:
    """Return the positions that a model was made for.

    Dynamic NTK scaling changes with every position past them; up to there its rotation is constant.
    """
    text_config = config.get_text_config(decoder=True)
    for name in _NAMES:
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return UNBOUNDED_CONTEXT


def grows_with_length(config: PreTrainedConfig) -> bool:
    """True if the rotation changes with every position past the context length (dynamic NTK)."""
    return any("dynamic" in _type(rope) for rope in _ropes(config))


def rotation_switch(config: PreTrainedConfig) -> int | None:
    """Return the length up to which a model of type longrope rotates by its short factors, and from which on
    it rotates every position by its long ones; None for other models, or if its context ends before.
    """
    ropes = [rope for rope in _ropes(config) if _type(rope) == "longrope"]
    switch = min((rope["original_max_position_embeddings"] for rope in ropes), default=None)
    return None if switch is None or switch >= context_length(config) else switch


def _type(rope: Mapping[str, Any]) -> str:
    return rope.get("rope_type") or "default"


def _ropes(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """The rotary parameters: one mapping, or one for each type of layer."""
    parameters = getattr(config.get_text_config(decoder=True), "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    yield from nested or [parameters]
