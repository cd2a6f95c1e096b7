"""Where a target's layers go that is too large for one device: over all GPUs, memory and disk.

accelerate places them, and moves what a layer needs while it computes. Here is decided how much each device
may take, so that the caches, the drafter and intermediate results still find room.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
"""Over what a target may be split: nothing, all GPUs, or memory and disk as well."""

MaxMemory = Mapping[str, int | str]
"""The most that a pair may take of each device: {"cuda:0": "20GiB", "cpu": 8_000_000_000}."""

_SMALL = {"nf4": CustomDtype.INT4, "int8": torch.int8}


@dataclass(frozen=True, slots=True)
class _Needs:
    """Bytes that a device has to have free beside the target's weights."""

    target: int
    drafter: int

    @classmethod
    def of(cls, target: MemoryNeed, both: MemoryNeed) -> _Needs:
        beside = target.total_bytes - target.weights_bytes
        return cls(target=beside, drafter=both.total_bytes - target.total_bytes)


def place(
    sources: Sequence[ModelSource], device: torch.device, spread: Spread, max_memory: MaxMemory | None = None
) -> torch.device | Split:
    """The device that has room for the pair, else how to split the target, the first of `sources`.

    Raises LoadError where it fits nowhere, or would have to be quantized outside of a GPU.
    """
    if spread == "no":
        require_memory(sources, device)
        return device
    room = room_by_device(device, spread, max_memory)
    both = memory_need(sources, device)
    for name in sorted(room, key=lambda name: name != _name(device)):
        if name.startswith(device.type) and both.total_bytes <= room[name]:
            return torch.device(name)
    needs = _Needs.of(memory_need(sources[:1], device), both)
    gpus = [name for name in room if name.startswith("cuda")]
    model = skeleton(sources[0], device)
    for count in range(1, len(gpus) + 1):
        used = {name: room[name] - needs.target for name in gpus[:count]}
        used[gpus[count - 1]] -= needs.drafter
        devices = _inferred(model, sources[0], used)
        if "disk" not in devices.values():
            return _split(devices)
    if spread == "gpus":
        raise LoadError(
            f"{refusal(sources, device, both, sum(room.values()))} With device auto, layers that find no "
            "room on the GPUs stay in memory or on disk: slow, but it works."
        )
    if sources[0].quantization != "none":
        raise LoadError(
            f"{sources[0].model} does not fit on the GPUs here in {sources[0].quantization}, and "
            "bitsandbytes computes nothing that lies in memory or on disk. Use quantization none, or choose "
            "a smaller pair."
        )
    # Layers in memory and on disk are computed on the first device, so the drafter is there too.
    first = gpus[0] if gpus else "cpu"
    used = {name: room[name] - (needs.target if name in gpus else 0) for name in room}
    used[first] = room.get(first, 0) - needs.target - needs.drafter
    if used[first] < 0:
        raise LoadError(refusal(sources, device, both, room.get(first, 0)))
    return _split(_inferred(model, sources[0], used))


def room_by_device(
    device: torch.device, spread: Spread, max_memory: MaxMemory | None = None
) -> dict[str, int]:
    """Bytes that may be used, the GPUs first. Raises SettingsError for a device or a size that is none."""
    free = {"cpu": _free(torch.device("cpu"))} if spread == "anywhere" else {}
    if device.type == "cuda":
        gpus = {f"cuda:{at}": torch.device("cuda", at) for at in range(torch.cuda.device_count())}
        free = {name: _free(gpu) for name, gpu in gpus.items()} | free
    if max_memory is None:
        return free
    if unknown := sorted(set(max_memory) - set(free)):
        raise SettingsError(f"max_memory names {unknown[0]!r}; the devices here are {', '.join(free)}.")
    return {name: min(room, _bytes(max_memory[name])) for name, room in free.items() if name in max_memory}


def _name(device: torch.device) -> str:
    return f"cuda:{device.index or 0}" if device.type == "cuda" else "cpu"


def _free(device: torch.device) -> int:
    """Without a limit where the system does not tell."""
    free = free_bytes(device)
    return sys.maxsize if free is None else free


def _bytes(size: int | str) -> int:
    try:
        return convert_file_size_to_int(size)
    except ValueError as error:
        raise SettingsError(
            f"max_memory must be bytes or a size like 20GiB or 500MB, not {size!r}."
        ) from error


def _inferred(model: PreTrainedModel, source: ModelSource, room: Mapping[str, int]) -> dict[str, str]:
    """Module → device, "disk" for what finds no room."""
    head = model.get_output_embeddings()
    small = _SMALL.get(source.quantization)
    special = {
        f"{name}.weight": small
        for name, module in model.named_modules()
        if small is not None and isinstance(module, torch.nn.Linear) and module is not head
    }
    numbered = {
        int(name.removeprefix("cuda:")) if ":" in name else name: max(0, n) for name, n in room.items()
    }
    found = infer_auto_device_map(
        model,
        max_memory=numbered,
        no_split_module_classes=sorted(model._no_split_modules or ()),
        dtype=model.dtype,
        special_dtypes=special,
    )
    return {module: f"cuda:{at}" if isinstance(at, int) else at for module, at in found.items()}


def _split(devices: dict[str, str]) -> Split:
    """What lies in memory or on disk is computed on the first GPU, or on the CPU where there is none."""
    gpus = [at for at in devices.values() if at.startswith("cuda")]
    first = torch.device(gpus[0]) if gpus else torch.device("cpu")
    last = list(devices.values())[-1]
    return Split(devices, torch.device(last) if last.startswith("cuda") else first)
