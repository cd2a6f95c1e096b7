"""Noise on a drafter's weights, to measure speculation where drafts fail."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from ..drafting.length import StepCosts
from ..engine import Engine
from ..errors import SettingsError
from ..peers import require_modules
from ..runners import runner_for
from ..trace import DraftSource


@torch.no_grad()
def noisy_copy(model: PreTrainedModel, noise: float, seed: int = 0) -> PreTrainedModel:
    """Return a copy with Gaussian noise on its weights, in standard deviations of each weight matrix."""
    model = copy.deepcopy(model)
    generator = torch.Generator(model.device).manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() > 1 and weight.is_floating_point():
            drawn = torch.randn(weight.shape, generator=generator, device=weight.device, dtype=weight.dtype)
            weight.add_(drawn * weight.std() * noise)
    return model


def with_noisy_drafter(engine: Engine, noise: float, seed: int = 0) -> Engine:
    """Return an engine over the same target and a noisy copy of the drafter.

    The cost of a step stays the same. Raises SettingsError for a target alone, or quantized for a CPU.
    """
    pair = engine.pair
    if pair.drafter is None:
        raise SettingsError("--drafter-noise needs a pair with a drafter.")
    require_modules(pair)
    drafter = runner_for(
        noisy_copy(pair.drafter.model, noise, seed),
        vocab_size=pair.drafter.vocab_size,
        weights=pair.drafter.weights,
        keeps_modules=True,
        threads=pair.drafter.threads,
    )
    costs: dict[DraftSource, StepCosts] = {source: copy.deepcopy(cost) for source, cost in pair.costs.items()}
    noisy = replace(pair, drafter=drafter, costs=costs)
    title = f"{engine.info.title}, noise of {noise:g} on the drafter"
    return Engine(noisy, replace(engine.info, title=title), engine.default_settings)
