"""Check of the formats that the weights are stored in, by the configurations alone.

A format that no device here can load fails; one that only another device could load is a warning.
"""

from __future__ import annotations

import torch

from ..hub.model_files import ModelFiles
from .report import Check, Status

NAME = "weights' format"


def check_weights_format(target: ModelFiles, drafter: ModelFiles) -> Check:
    """Ask transformers whether it can load each model's weights on this machine's best device."""
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    status: Status = "pass"
    reasons = []
    models = [("target", target)] if drafter is target else [("target", target), ("drafter", drafter)]
    for role, files in models:
        obstacle = files.quantization.obstacle(device) if files.quantization else None
        if obstacle is None:
            continue
        reasons.append(f"The {role}'s weights cannot be loaded on {device}: {obstacle.reason}.")
        status = "fail" if obstacle.everywhere or status == "fail" else "warning"
    explanation = "transformers loads them."
    if reasons:
        explanation = f"{' '.join(reasons)} Or choose the model that they were quantized from."
    return Check(NAME, status, _format_text(target), _format_text(drafter), explanation)


def _format_text(files: ModelFiles) -> str:
    if files.gguf_format is not None:
        return files.gguf_format
    return "floating point" if files.quantization is None else str(files.quantization)
