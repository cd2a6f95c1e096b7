"""Description of a loaded pair for people."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..pair import LoadedPair
from ..runners import Runner
from ..runners.skeleton import own_parameters
from ..units import counted
from .placement import Placement
from .plan import PairPlan
from .weights import ModelSource


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Description of a loaded pair for people. `runner_reason` is why no faster runner took the target;
    `drafter_context_length` is None unless it is shorter than the target's, the `context_length`;
    `template_notes` are sentences on what the chat template leaves out or refuses, `settings_notes` on values
    of the model's own settings that cannot be used. `threads` are those of a forward on a CPU, where the
    runner chose them. `thinks` is True for a model that writes a thought in tags before it answers,
    `can_switch_thinking` if its chat template follows settings.thinking.
    """

    preset: str | None
    title: str
    target: str
    drafter: str | None
    device: str
    dtype: str
    target_quantization: str
    drafter_quantization: str | None
    runner: str
    runner_reason: str | None
    context_length: int
    target_parameters: int
    drafter_parameters: int | None
    memory_bytes: int
    takes_system_message: bool
    drafter_context_length: int | None = None
    template_notes: tuple[str, ...] = ()
    settings_notes: tuple[str, ...] = ()
    threads: int | None = None
    thinks: bool = False
    can_switch_thinking: bool = False

    @property
    def device_and_threads(self) -> str:
        """The device, with the number of threads on a CPU where the runner chose it."""
        return self.device if self.threads is None else f"{self.device}, {counted(self.threads, 'thread')}"


def describe(
    plan: PairPlan, pair: LoadedPair, placement: Placement, settings_notes: tuple[str, ...]
) -> EngineInfo:
    """Return the description of a pair that was loaded as planned."""
    target, drafter = pair.target.model, pair.drafter.model if pair.drafter is not None else None
    on_cuda = pair.target.device.type == "cuda"
    device = torch.cuda.get_device_name(pair.target.device) if on_cuda else "CPU"
    if placement.split is not None:
        device = f"{device} (target on {placement.split.device_names})"
    template = pair.prompter.template
    system_message = plan.takes_system_message
    if system_message is None:
        system_message = template.takes_system_message
    return EngineInfo(
        preset=plan.preset,
        title=plan.title,
        target=plan.target.model,
        drafter=plan.drafter.model if plan.drafter else None,
        device=device,
        dtype=str(target.dtype).removeprefix("torch."),
        target_quantization=plan.target.quantization_name,
        drafter_quantization=_drafter_quantization(plan.drafter, pair.drafter),
        runner=pair.target.name,
        runner_reason=pair.target.reason,
        context_length=pair.context_length,
        target_parameters=own_parameters(target),
        drafter_parameters=own_parameters(drafter) if drafter is not None else None,
        memory_bytes=sum(runner.weights_bytes for runner in pair.runners),
        takes_system_message=system_message,
        drafter_context_length=pair.drafter_context_length,
        template_notes=template.notes,
        settings_notes=settings_notes,
        threads=pair.target.threads,
        thinks=template.thinking is not None and template.thinking.tags is not None,
        can_switch_thinking=template.thinking is not None and template.thinking.switch is not None,
    )


def _drafter_quantization(source: ModelSource | None, runner: Runner | None) -> str | None:
    """The quantization for people; an optional one may have been left out."""
    if source is None or runner is None:
        return None
    return "none" if source.optional and runner.weights == "float32" else source.quantization_name
