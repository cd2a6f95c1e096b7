"""Estimate of the memory that a pair needs, and comparison with free memory, before any download.

Counts the parameters of models without weights (on the meta device). Knows nothing of presets or the Hub.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ..errors import LoadError
from ..runners import copied_bytes
from ..runners.positions import context_length
from ..runners.serving import storing_layers, takes_dynamic_cache
from ..settings import Quantization
from ..units import gigabytes
from .quantization import CPU_FORMATS
from .weights import ModelSource, skeleton

PLANNED_POSITIONS = 4096
"""Length of the one conversation that is planned for; the target's context length if that is shorter."""

_PREFILL_ROWS = 512
_CUDA_HEAD_ROOM_BYTES = 512 * 2**20
"""Captured graphs, the libraries' workspaces and the allocator's fragmentation."""

_NF4_BLOCK = 64
_SMALLER: tuple[Quantization, ...] = ("int8", "nf4")


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a model or a pair will take."""

    weights_bytes: int
    """Parameters and buffers, with the packed copies that the CPU's faster products need."""
    cache_bytes: int
    """Keys and values of one conversation of `positions` tokens."""
    working_bytes: int
    """The largest intermediate results of a prefill, and the head room of a device."""
    positions: int

    @property
    def total_bytes(self) -> int:
        """Weights, caches and working memory together."""
        return self.weights_bytes + self.cache_bytes + self.working_bytes


def memory_need(sources: Sequence[ModelSource], device: torch.device, packs: bool = True) -> MemoryNeed:
    """Estimate the memory of models on one device, on a CPU for runners that copy all weights if `packs`.

    Raises LoadError for an unknown architecture.
    """
    models = [skeleton(source, device) for source in sources]
    configs = [model.config.get_text_config(decoder=True) for model in models]
    # An answer may use the target's whole context, and the drafter's cache ends with its own.
    positions = [min(PLANNED_POSITIONS, context_length(config)) for config in configs]
    unquantized = [
        model
        for model, source in zip(models, sources, strict=True)
        if source.quantization_in_memory == "none"
    ]
    copies = sum(copied_bytes(model, packs) for model in unquantized) if device.type == "cpu" else 0
    head_room = _CUDA_HEAD_ROOM_BYTES if device.type == "cuda" else 0
    return MemoryNeed(
        weights_bytes=sum(
            weights_bytes(model, _loaded_in(source, device))
            for model, source in zip(models, sources, strict=True)
        )
        + copies,
        cache_bytes=sum(
            min(positions[0], count) * model.dtype.itemsize * _cached_values(model)
            for count, model in zip(positions, models, strict=True)
        ),
        working_bytes=max(
            _PREFILL_ROWS * model.dtype.itemsize * _working_values(config)
            for model, config in zip(models, configs, strict=True)
        )
        + head_room,
        positions=positions[0],
    )


def _loaded_in(source: ModelSource, device: torch.device) -> Quantization:
    """The quantization that weights are loaded in. A CPU quantizes them layer by layer when all are there."""
    on_cpu = device.type == "cpu" and source.stored is None and source.quantization in CPU_FORMATS
    return "none" if on_cpu else source.quantization_in_memory


def weights_bytes(model: PreTrainedModel, quantization: Quantization) -> int:
    """Return the bytes of parameters and buffers; parameters that are not quantized keep the model's dtype.

    bitsandbytes quantizes every nn.Linear but the output layer: to 4 bits with a float32 for each 64 weights,
    or to 8 bits with one for each row.
    """
    head = model.get_output_embeddings()
    quantized = {
        id(module.weight): module.weight
        for module in model.modules()
        if quantization != "none" and isinstance(module, torch.nn.Linear) and module is not head
    }
    total = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    for parameter in model.parameters():
        count = parameter.numel()
        if id(parameter) not in quantized:
            total += count * model.dtype.itemsize
        elif quantization == "int8":
            total += count + 4 * parameter.shape[0]
        else:
            total += math.ceil(count / 2) + 4 * math.ceil(count / _NF4_BLOCK)
    return total


def free_bytes(device: torch.device) -> int | None:
    """Return the bytes available without swapping; None if the system does not report them."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    known = [amount for amount in (_available_bytes(), container_free_bytes()) if amount is not None]
    return min(known) if known else None


def require_memory(sources: Sequence[ModelSource], device: torch.device) -> bool:
    """Return True if the models fit with the packed copies of the fastest runners, False without these only.

    Raises LoadError with the numbers and what would fit instead if they fit in neither way.
    """
    free = free_bytes(device)
    for packs in (True, False):
        need = memory_need(sources, device, packs)
        if free is None or need.total_bytes <= free:
            return packs
    raise LoadError(
        f"{refusal(sources, device, need, free)} With device auto, layers that find no room on it stay in "
        "memory or on disk: slow, but it works."
    )


def refusal(sources: Sequence[ModelSource], device: torch.device, need: MemoryNeed, free: int) -> str:
    """Return an error message with the numbers and what would fit instead."""
    location = f"on {device}" if device.type == "cuda" else "in this machine's memory"
    names = " and ".join(source.model for source in sources)
    text = (
        f"{names} would need about {gigabytes(need.total_bytes)} {location} "
        f"({gigabytes(need.weights_bytes)} of weights, {gigabytes(need.cache_bytes)} of caches for "
        f"{need.positions:,} tokens), and {gigabytes(free)} are free. Nothing was downloaded or read. "
    )
    quantizable = device.type == "cuda" and all(source.stored is None for source in sources)
    for quantization in _SMALLER if quantizable else ():
        smaller = [replace(source, quantization=quantization) for source in sources]
        needed = memory_need(smaller, device, packs=False).total_bytes
        if needed <= free and needed < need.total_bytes:
            return text + f"With {quantization} quantization it needs about {gigabytes(needed)}: choose that."
    if len(sources) > 1 and memory_need(sources[:1], device, packs=False).total_bytes <= free:
        text += "The target alone would fit: load it without a drafter and draft by n-grams. Or choose "
    else:
        text += "Choose "
    return text + (
        "a smaller pair, or free memory (a pair that is loaded keeps its memory until the next one is ready)."
    )


def _cached_values(model: PreTrainedModel) -> int:
    """Number of cached keys and values of one position in all layers. Recurrent states are not counted: they
    are small, and do not grow.
    """
    config = model.config.get_text_config(decoder=True)
    if not takes_dynamic_cache(type(model)):
        return 0
    # Layers may differ in their sizes (Gemma 4).
    layers = getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers
    stores = storing_layers(config)
    return sum(_layer_values(layer) for layer, stored in zip(layers, stores, strict=False) if stored)


def _layer_values(config: PreTrainedConfig) -> int:
    query_heads = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or query_heads
    if hasattr(config, "qk_nope_head_dim"):  # multi-head latent attention, cached as heads (DeepSeek)
        return heads * (config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim)
    return 2 * heads * (getattr(config, "head_dim", None) or config.hidden_size // query_heads)


def _working_values(config: PreTrainedConfig) -> int:
    """Number of live values of one prefill row: the MLP's two products, the layer's input and sums."""
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return 3 * (max(inner) if isinstance(inner, list) else inner) + 4 * config.hidden_size


def _available_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # macOS and Windows do not report it
        return None


def container_free_bytes(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes left under a container's limit (cgroup 2), inactive page cache included.

    None if there is no limit, or no cgroup 2 at `group`.
    """
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no limit reads "max"
        return None
    return max(0, limit - used + int(stat.get("inactive_file", 0)))
