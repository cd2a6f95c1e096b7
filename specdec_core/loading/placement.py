"""Placement of a pair: one device with room for it, else a target split over GPUs, memory and disk.

accelerate assigns the layers, and moves weights while it computes. This module decides how much each device
may take, so that the caches, the drafter and intermediate results still have room.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import CustomDtype, convert_file_size_to_int
from transformers import PreTrainedModel

from ..errors import LoadError, SettingsError
from .memory import MemoryNeed, free_bytes, memory_need, refusal, require_memory
from .weights import ModelSource, Split, skeleton

Spread = Literal["no", "gpus", "anywhere"]
"""Devices that a target may be split over: none, all GPUs, or GPUs, memory and disk."""

MaxMemory = Mapping[str, int | str]
"""The most that a pair may take of each device: {"cuda:0": "20GiB", "cpu": 8_000_000_000}."""

_SMALL = {"nf4": CustomDtype.INT4, "int8": torch.int8}


@dataclass(frozen=True, slots=True)
class Placement:
    """The device of both models or, with `split`, of the drafter and the target's last layer.

    `packs` is True if there is room for the copies of weights that a CPU's fastest runner makes.
    """

    device: torch.device
    split: Split | None = None
    packs: bool = True


def plan_placement(
    sources: Sequence[ModelSource], device: torch.device, spread: Spread, max_memory: MaxMemory | None = None
) -> Placement:
    """Choose a device with room for the pair, else split the target, the first of `sources`.

    Raises LoadError if the pair fits nowhere, or only with quantized layers outside a GPU; SettingsError for
    a `max_memory` that names no device here or no size.
    """
    if spread == "no":
        return Placement(device, packs=require_memory(sources, device))
    room = room_by_device(device, spread, max_memory)
    needs = [(packs, memory_need(sources, device, packs)) for packs in (True, False)]
    for name in sorted(room, key=lambda name: name != _device_name(device)):
        for packs, need in needs:
            if name.startswith(device.type) and need.total_bytes <= room[name]:
                return Placement(torch.device(name), packs=packs)
    _, both = needs[-1]
    splitter = _Splitter(sources, device, room, both)
    split = splitter.over_gpus()
    if split is None:
        if spread == "gpus":
            raise LoadError(
                f"{refusal(sources, device, both, sum(room.values()))} With device auto, layers that find no "
                "room on the GPUs stay in memory or on disk: slow, but it works."
            )
        split = splitter.with_offload()
    return Placement(split.last, split, packs=False)


def room_by_device(
    device: torch.device, spread: Spread, max_memory: MaxMemory | None = None
) -> dict[str, int]:
    """Return the usable bytes of each device, the GPUs first.

    Raises SettingsError if `max_memory` names a device that is not here or a size that cannot be parsed.
    """
    free = {"cpu": _free(torch.device("cpu"))} if spread == "anywhere" else {}
    if device.type == "cuda":
        gpus = {f"cuda:{at}": torch.device("cuda", at) for at in range(torch.cuda.device_count())}
        free = {name: _free(gpu) for name, gpu in gpus.items()} | free
    if max_memory is None:
        return free
    if unknown := sorted(set(max_memory) - set(free)):
        raise SettingsError(f"max_memory names {unknown[0]!r}; the devices here are {', '.join(free)}.")
    return {name: min(room, _bytes(max_memory[name])) for name, room in free.items() if name in max_memory}


class _Splitter:
    """Search for a split of the target, the first of `sources`, that leaves room for the rest of the pair.

    The rest is the target's caches and intermediate results, on each of its GPUs, and the drafter, on one
    device. `room` is the usable bytes of each device, the GPUs first; `both` is the need of the whole pair.
    """

    def __init__(
        self, sources: Sequence[ModelSource], device: torch.device, room: Mapping[str, int], both: MemoryNeed
    ) -> None:
        target = memory_need(sources[:1], device, packs=False)
        self._sources = sources
        self._device = device
        self._room = room
        self._both = both
        self._gpus = [name for name in room if name.startswith("cuda")]
        self._beside_weights = target.total_bytes - target.weights_bytes
        self._drafter_bytes = both.total_bytes - target.total_bytes
        self._model = skeleton(sources[0], device)

    def over_gpus(self) -> Split | None:
        """Split over as few GPUs as possible, the drafter on the last; None if all together are too small."""
        for count in range(1, len(self._gpus) + 1):
            usable = {name: self._room[name] - self._beside_weights for name in self._gpus[:count]}
            usable[self._gpus[count - 1]] -= self._drafter_bytes
            devices = _assign_modules(self._model, self._sources[0], usable)
            if "disk" not in devices.values():
                return _split(devices)
        return None

    def with_offload(self) -> Split:
        """Split over GPUs, then memory, then disk.

        Raises LoadError for a quantized target, or if the first device has no room for the drafter.
        """
        target = self._sources[0]
        if target.quantization_in_memory != "none":
            raise LoadError(
                f"{target.model} does not fit on the GPUs here in {target.quantization_name}, and quantized "
                "layers compute nothing that lies in memory or on disk. Use quantization none, or choose a "
                "smaller pair."
            )
        # Layers in memory and on disk are computed on the first device, so the drafter is there too.
        first = self._gpus[0] if self._gpus else "cpu"
        usable = {
            name: room - (self._beside_weights if name in self._gpus else 0)
            for name, room in self._room.items()
        }
        usable[first] = self._room.get(first, 0) - self._beside_weights - self._drafter_bytes
        if usable[first] < 0:
            raise LoadError(refusal(self._sources, self._device, self._both, self._room.get(first, 0)))
        return _split(_assign_modules(self._model, target, usable))


def _assign_modules(model: PreTrainedModel, source: ModelSource, room: Mapping[str, int]) -> dict[str, str]:
    """Assign modules to devices within the bytes of `room`, and to "disk" the modules that do not fit."""
    head = model.get_output_embeddings()
    small = _SMALL.get(source.quantization_in_memory)
    special = {
        f"{name}.weight": small
        for name, module in model.named_modules()
        if small is not None and isinstance(module, torch.nn.Linear) and module is not head
    }
    max_memory: dict[int | str, int | str] = {
        int(name.removeprefix("cuda:")) if ":" in name else name: max(0, n) for name, n in room.items()
    }
    assigned = infer_auto_device_map(
        model,
        max_memory=max_memory,
        no_split_module_classes=sorted(model._no_split_modules or ()),
        dtype=model.dtype,
        special_dtypes=special,
    )
    return {module: f"cuda:{at}" if isinstance(at, int) else str(at) for module, at in assigned.items()}


def _split(devices: dict[str, str]) -> Split:
    """Layers in memory or on disk are computed on the first GPU, or on the CPU if there is none."""
    gpus = [name for name in devices.values() if name.startswith("cuda")]
    first = torch.device(gpus[0]) if gpus else torch.device("cpu")
    last = list(devices.values())[-1]
    return Split(devices, torch.device(last) if last.startswith("cuda") else first)


def _device_name(device: torch.device) -> str:
    return f"cuda:{device.index or 0}" if device.type == "cuda" else "cpu"


def _free(device: torch.device) -> int:
    """Free bytes; unlimited if the system does not report them."""
    free = free_bytes(device)
    return sys.maxsize if free is None else free


def _bytes(size: int | str) -> int:
    with suppress(ValueError, OverflowError):
        count = convert_file_size_to_int(size)
        if count > 0:
            return count
    raise SettingsError(f"max_memory must be bytes above 0 or a size like 20GiB or 500MB, not {size!r}.")
