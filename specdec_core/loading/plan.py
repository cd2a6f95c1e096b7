"""What is to be loaded: a preset's facts, or two names, with what the caller asks for on top.

Reads no model; of an adapter what it is for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import SettingsError
from ..hub.adapters import read_adapter
from ..presets import Preset, PresetModel, get_preset
from ..settings import Settings
from .placement import MaxMemory, Spread
from .weights import QUANTIZATIONS, ModelSource, Quantization, resolve_device


@dataclass(frozen=True, slots=True)
class PairPlan:
    """`device` is where everything goes that is not split, `spread` over what the target may be.
    `takes_system_message` is None where the chat template has to tell.
    """

    preset: str | None
    title: str
    target: ModelSource
    drafter: ModelSource | None
    device: torch.device
    spread: Spread
    max_memory: MaxMemory | None
    vocab_padding: str
    drafter_vocabulary: int | None
    drafter_vocabulary_text: str | None
    takes_system_message: bool | None
    settings: Settings


def plan_pair(
    preset: str | Preset | None,
    *,
    target: str | None = None,
    drafter: str | None = None,
    revision: str | None = None,
    drafter_revision: str | None = None,
    device: str | None = None,
    max_memory: MaxMemory | None = None,
    quantization: Quantization | None = None,
    drafter_quantization: Quantization | None = None,
    vocab_padding: str | None = None,
) -> PairPlan:
    """`quantization` is for both models where `drafter_quantization` does not say otherwise of the drafter.

    Raises SettingsError where both or neither of preset and target are given, or something for a drafter that
    is not, PresetError for an unknown preset, LoadError for a device that is not there,
    PairUncheckableError for an adapter of no use.
    """
    resolved = resolve_device(device)
    _require_quantization("quantization", quantization)
    _require_quantization("drafter_quantization", drafter_quantization)
    if (preset is None) == (target is None):
        raise SettingsError("Name either a preset or a target (with or without a drafter), not both.")
    where = {"device": resolved, "spread": _spread(device, resolved, max_memory), "max_memory": max_memory}
    if preset is None:
        if drafter is None and (drafter_revision is not None or drafter_quantization is not None):
            raise SettingsError("A drafter's revision or quantization was given, but no drafter. Name one.")
        held_as = quantization or "none"
        return PairPlan(
            preset=None,
            title=f"{target} drafted by {drafter}" if drafter else target,
            target=_source(target, revision, held_as),
            drafter=_source(drafter, drafter_revision, drafter_quantization or held_as) if drafter else None,
            **where,
            vocab_padding=vocab_padding or "refuse",
            drafter_vocabulary=None,
            drafter_vocabulary_text=None,
            takes_system_message=None,
            settings=Settings(gamma="auto" if drafter else 0),
        )
    if drafter is not None or revision is not None or drafter_revision is not None:
        raise SettingsError("A preset names its own drafter and revisions; give a target to choose them.")
    chosen = get_preset(preset) if isinstance(preset, str) else preset

    def source(model: PresetModel, asked_for: Quantization | None) -> ModelSource:
        by_preset = chosen.cpu_quantization if resolved.type == "cpu" else model.quantization
        return _source(model.model, model.revision, asked_for or by_preset)

    return PairPlan(
        preset=chosen.name,
        title=chosen.title,
        target=source(chosen.target, quantization),
        drafter=source(chosen.drafter, drafter_quantization or quantization) if chosen.drafter else None,
        **where,
        vocab_padding=vocab_padding or chosen.vocab_padding,
        drafter_vocabulary=chosen.drafter_vocabulary,
        drafter_vocabulary_text=chosen.drafter_vocabulary_text,
        takes_system_message=chosen.takes_system_message,
        settings=chosen.settings,
    )


def _source(model: str, revision: str | None, quantization: Quantization) -> ModelSource:
    return ModelSource(model, revision, quantization, read_adapter(model))


def _spread(device: str | None, resolved: torch.device, max_memory: MaxMemory | None) -> Spread:
    """A device that is named is kept to."""
    if device == "auto":
        return "anywhere"
    if max_memory is not None:
        raise SettingsError("max_memory bounds what device auto may use; give it with device auto.")
    several = resolved.type == "cuda" and resolved.index is None and torch.cuda.device_count() > 1
    return "gpus" if several else "no"


def _require_quantization(name: str, value: str | None) -> None:
    if value is not None and value not in QUANTIZATIONS:
        raise SettingsError(f"{name} must be {', '.join(QUANTIZATIONS)}, not {value!r}.")
