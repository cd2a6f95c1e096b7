"""Choice of the two runners of a pair: threads, and formats of weights on a CPU.

Knows nothing of files: the models have their weights.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from transformers import PreTrainedModel

from ..errors import LoadError, quote
from ..onnx_runtime.thread_count import measured_threads
from ..onnx_runtime.threads import most_threads
from ..out_of_memory import out_of_memory
from ..runners import Runner, runner_for
from ..runners.skeleton import own_parameters
from .placement import Placement
from .plan import PairPlan
from .quantization import CPU_FORMATS
from .weights import ModelSource

_SMALL_BYTES = 96 * 2**20
"""A drafter of so many bytes keeps its modules' weights beside the quantized ones."""


def without_optional_quantizations(plan: PairPlan) -> PairPlan:
    """Return the plan without quantizations that are optional."""
    drafter = None if plan.drafter is None else _without_optional(plan.drafter)
    return replace(plan, target=_without_optional(plan.target), drafter=drafter)


def choose_runners(
    plan: PairPlan,
    target_model: PreTrainedModel,
    drafter_model: PreTrainedModel | None,
    placement: Placement,
    vocab_size: int,
    eager: str | None,
) -> tuple[Runner, Runner | None]:
    """Choose the runners of target and drafter; a split target always has the eager one.

    Raises LoadError if a model cannot be quantized on the CPU.
    """
    on_cpu = placement.device.type == "cpu" and eager is None
    threads = measured_threads(most_threads()) if on_cpu else None
    if placement.split is None:
        target = _runner(plan.target, target_model, placement, vocab_size, eager, threads)
    else:
        reason = f"the target's layers lie on {placement.split.device_names}"
        target = runner_for(target_model, vocab_size=vocab_size, eager=reason, device=placement.device)
    if drafter_model is None:
        return target, None
    assert plan.drafter is not None
    # transformers' lanes need the modules of both, and their weights are not missed in a small drafter.
    small = own_parameters(drafter_model) * drafter_model.dtype.itemsize <= _SMALL_BYTES
    keeps = small and target.keeps_modules
    drafter = _runner(plan.drafter, drafter_model, placement, vocab_size, eager, threads, keeps_modules=keeps)
    return target, drafter


def _runner(
    source: ModelSource,
    model: PreTrainedModel,
    placement: Placement,
    vocab_size: int,
    eager: str | None,
    threads: int | None,
    *,
    keeps_modules: bool = False,
) -> Runner:
    """Choose the runner of an undivided model. Raises LoadError if it cannot be quantized on the CPU."""
    on_cpu = placement.device.type == "cpu"
    choose = partial(
        runner_for,
        model,
        vocab_size=vocab_size,
        eager=eager,
        packs=placement.packs,
        keeps_modules=keeps_modules,
        threads=threads,
    )
    weights = CPU_FORMATS[source.quantization] if on_cpu else "float32"
    if weights == "float32":
        return choose()
    try:
        return choose(weights=weights, finer=source.gguf.finer if source.gguf else ())
    except Exception as error:  # whatever ONNX Runtime does not allow on this CPU
        if out_of_memory(error):
            raise
        if not (source.optional and keeps_modules):
            raise LoadError(
                f"{source.model} cannot be computed in {source.quantization} on this CPU: {quote(error)}. "
                "Use quantization none for it."
            ) from error
    return choose()


def _without_optional(source: ModelSource) -> ModelSource:
    """The source without its quantization if that is optional, or would be a GGUF file's own."""
    if not (source.optional or source.undecided):
        return source
    return replace(source, quantization="none", optional=False, undecided=False)
