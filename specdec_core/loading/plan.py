"""Plan of a load: a preset, or a target with or without a drafter, with the caller's choices applied.

Reads no model files, except for the configuration of an adapter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..errors import SettingsError
from ..hub.adapters import read_adapter
from ..hub.gguf_files import is_gguf
from ..hub.model_files import require_no_local_revision
from ..onnx_runtime.packages import obstacle
from ..preset import Preset, PresetModel
from ..presets import get_preset
from ..settings import QUANTIZATIONS, Quantization, Settings, VocabPadding
from .devices import resolve_device
from .placement import MaxMemory, Spread
from .weights import ModelSource


@dataclass(frozen=True, slots=True)
class PairPlan:
    """The resolved choices of a load.

    `device` takes everything that is not split; `spread` bounds the devices of a split target.
    `takes_system_message` is None if the chat template decides. `chosen_settings` are the names of settings
    that the model's own do not replace.
    """

    preset: str | None
    title: str
    target: ModelSource
    drafter: ModelSource | None
    device: torch.device
    spread: Spread
    max_memory: MaxMemory | None
    vocab_padding: VocabPadding
    drafter_vocabulary: int | None
    drafter_vocabulary_text: str | None
    takes_system_message: bool | None
    settings: Settings
    chosen_settings: frozenset[str]

    @property
    def sources(self) -> list[ModelSource]:
        """The target and, if any, the drafter."""
        return [self.target] if self.drafter is None else [self.target, self.drafter]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A caller's choices: a preset, or a target with or without a drafter, and options.

    `revision` is the target's. `quantization` applies to both models unless `drafter_quantization` is given;
    None leaves it to the preset. `max_memory` bounds the memory that device "auto" may use.
    """

    preset: str | Preset | None = None
    target: str | None = None
    drafter: str | None = None
    revision: str | None = None
    drafter_revision: str | None = None
    device: str | None = None
    max_memory: MaxMemory | None = None
    quantization: Quantization | None = None
    drafter_quantization: Quantization | None = None
    vocab_padding: VocabPadding | None = None


def plan_pair(options: LoadOptions) -> PairPlan:
    """Resolve models, revisions, quantizations and devices of a load.

    Raises SettingsError if both or neither of preset and target are given, or options of a drafter without a
    drafter; PresetError for an unknown preset; LoadError for a device that is not available;
    PairUncheckableError for an adapter that cannot be used, and for a revision of what is here.
    """
    device = resolve_device(options.device)
    _require_quantization("quantization", options.quantization)
    _require_quantization("drafter_quantization", options.drafter_quantization)
    spread = _spread(options.device, device, options.max_memory)
    if options.preset is not None and options.target is None:
        return _plan_preset(options, options.preset, device, spread)
    if options.preset is None and options.target is not None:
        return _plan_models(options, options.target, device, spread)
    raise SettingsError("Name either a preset or a target (with or without a drafter), not both.")


def _plan_models(options: LoadOptions, target: str, device: torch.device, spread: Spread) -> PairPlan:
    drafter, drafter_quantization = options.drafter or None, options.drafter_quantization
    if drafter is None and (options.drafter_revision is not None or drafter_quantization is not None):
        raise SettingsError("A drafter's revision or quantization was given, but no drafter. Name one.")
    drafter_source = None
    if drafter is not None:
        drafter_source = _source(
            drafter, options.drafter_revision, drafter_quantization or options.quantization
        )
    return PairPlan(
        preset=None,
        title=f"{target} drafted by {drafter}" if drafter else target,
        target=_source(target, options.revision, options.quantization),
        drafter=drafter_source,
        device=device,
        spread=spread,
        max_memory=options.max_memory,
        vocab_padding=options.vocab_padding or "refuse",
        drafter_vocabulary=None,
        drafter_vocabulary_text=None,
        takes_system_message=None,
        settings=Settings(gamma="auto" if drafter else 0),
        chosen_settings=frozenset(),
    )


def _plan_preset(
    options: LoadOptions, preset: str | Preset, device: torch.device, spread: Spread
) -> PairPlan:
    if (options.drafter, options.revision, options.drafter_revision) != (None, None, None):
        raise SettingsError("A preset names its own drafter and revisions; give a target to choose them.")
    chosen = get_preset(preset) if isinstance(preset, str) else preset

    def source(model: PresetModel, override: Quantization | None) -> ModelSource:
        return _source(model.model, model.revision, override) if override else _by_preset(model, device)

    drafter = None
    if chosen.drafter is not None:
        drafter = source(chosen.drafter, options.drafter_quantization or options.quantization)
    return PairPlan(
        preset=chosen.name,
        title=chosen.title,
        target=source(chosen.target, options.quantization),
        drafter=drafter,
        device=device,
        spread=spread,
        max_memory=options.max_memory,
        vocab_padding=options.vocab_padding or chosen.vocab_padding,
        drafter_vocabulary=chosen.drafter_vocabulary,
        drafter_vocabulary_text=chosen.drafter_vocabulary_text,
        takes_system_message=chosen.takes_system_message,
        settings=chosen.settings,
        chosen_settings=chosen.chosen_settings,
    )


def _by_preset(model: PresetModel, device: torch.device) -> ModelSource:
    """The preset's model in its quantization for this device; in none on a CPU where nothing computes it."""
    if device.type != "cpu":
        return _source(model.model, model.revision, model.quantization)
    wanted = model.cpu_quantization
    if wanted is None:
        return _source(model.model, model.revision, None)
    possible = wanted != "none" and obstacle() is None
    source = _source(model.model, model.revision, wanted if possible else "none")
    return replace(source, optional=possible)


def _source(model: str, revision: str | None, quantization: Quantization | None) -> ModelSource:
    require_no_local_revision(model, revision)
    source = ModelSource(model, revision, quantization or "none", read_adapter(model))
    return replace(source, undecided=quantization is None and is_gguf(model))


def _spread(device: str | None, resolved: torch.device, max_memory: MaxMemory | None) -> Spread:
    """Devices that the target may be split over; none if the caller names one device."""
    if device == "auto":
        return "anywhere"
    if max_memory is not None:
        raise SettingsError("max_memory bounds what device auto may use; give it with device auto.")
    several = resolved.type == "cuda" and resolved.index is None and torch.cuda.device_count() > 1
    return "gpus" if several else "no"


def _require_quantization(name: str, value: str | None) -> None:
    if value is not None and value not in QUANTIZATIONS:
        raise SettingsError(f"{name} must be {', '.join(QUANTIZATIONS)}, not {value!r}.")
