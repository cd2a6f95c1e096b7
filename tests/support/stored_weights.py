"""Copies of a model's folder with other weights or a quantization of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [8, 8]}


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Put values into config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(changes)))


def weights_of(folder: str | Path) -> dict[str, torch.Tensor]:
    """Read model.safetensors."""
    return load_file(Path(folder) / "model.safetensors")


def copy_with_weights(source: str | Path, folder: Path, weights: Mapping[str, torch.Tensor]) -> Path:
    """Copy a model's folder with these weights in place of its own."""
    shutil.copytree(source, folder)
    save_file(dict(weights), folder / "model.safetensors", {"format": "pt"})
    return folder


def block_fp8(weight: torch.Tensor, block: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize to float8 with a scale for each block, the last ones cut short; return weight and scales."""
    rows, columns = weight.shape
    padded = torch.nn.functional.pad(weight, (0, -columns % block, 0, -rows % block))
    scales = padded.unfold(0, block, block).unfold(1, block, block).abs().amax((-2, -1)) / 448
    return (weight / spread(scales, weight, block)).to(torch.float8_e4m3fn), scales


def spread(scales: torch.Tensor, weight: torch.Tensor, block: int = 8) -> torch.Tensor:
    """Return the scale of each weight."""
    rows, columns = weight.shape
    return scales.repeat_interleave(block, 0).repeat_interleave(block, 1)[:rows, :columns]


def save_block_fp8(source: str | Path, folder: Path, block: int = 8) -> tuple[Path, Path]:
    """Save a model with its projections in block FP8, and with the values that those stand for."""
    stored, meant = {}, {}
    for name, weight in weights_of(source).items():
        stored[name] = meant[name] = weight
        if name.endswith("proj.weight"):
            stored[name], scales = block_fp8(weight, block)
            stored[f"{name}_scale_inv"] = scales
            meant[name] = stored[name].float() * spread(scales, weight, block)
    quantized = copy_with_weights(source, folder / "fp8", stored)
    change_config(quantized, {"quantization_config": FP8 | {"weight_block_size": [block, block]}})
    return quantized, copy_with_weights(source, folder / "meant", meant)
