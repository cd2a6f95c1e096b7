"""Runners: one model and its rewindable cache behind one interface."""

from collections.abc import Collection
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import quote
from ..out_of_memory import out_of_memory, release_memory
from .base import Format, RewindableCache, Runner, Step, Then
from .cpu_copies import copied_bytes
from .cuda_capture import capture_refusal
from .cuda_graph import CudaGraphRunner
from .eager import EagerRunner
from .lean import LeanRunner
from .lean_forward import UnsupportedError
from .onnx.families import require_packages
from .positions import context_length, grows_with_length, rotation_switch
from .rope_switch import RopeSwitchRunner
from .serving import Serving, serving
from .stepwise import StepwiseRunner

__all__ = [
    "CudaGraphRunner",
    "EagerRunner",
    "Format",
    "LeanRunner",
    "RewindableCache",
    "RopeSwitchRunner",
    "Runner",
    "Serving",
    "Step",
    "StepwiseRunner",
    "Then",
    "UnsupportedError",
    "copied_bytes",
    "runner_for",
    "serving",
]


def runner_for(
    model: PreTrainedModel,
    *,
    vocab_size: int | None = None,
    eager: str | None = None,
    device: torch.device | None = None,
    packs: bool = True,
    weights: Format = "float32",
    finer: Collection[str] = (),
    keeps_modules: bool = False,
    threads: int | None = None,
) -> Runner:
    """Return the fastest runner that supports this model; an eager one has the reason in `reason`.

    With `eager`, itself such a reason, the runner is eager and nothing is computed; `device` is then where a
    model over several devices puts out its logits. `packs` allows copies of all weights on a CPU. There the
    weights are quantized to the format `weights`, with 8 bits in place of 4 for modules of the names in
    `finer`; raises UnsupportedError if they cannot be. The modules give theirs up then, unless the runner
    `keeps_modules`. ONNX Runtime computes on `threads`, by default
    torch's number.
    """
    if weights != "float32":
        from .onnx.runner import OnnxRunner

        return OnnxRunner(
            model,
            vocab_size=vocab_size,
            weights=weights,
            finer=finer,
            keeps_modules=keeps_modules,
            threads=threads,
        )
    config = model.config
    verdict = serving(config)
    if verdict.level == "alone":
        reason = f"{config.model_type} {verdict.reason}"
        return StepwiseRunner(model, vocab_size=vocab_size, reason=reason, device=device)
    switch = rotation_switch(config)
    if switch is not None:
        reason = eager or f"the rotation of {config.model_type} changes after {switch:,} positions"
        return RopeSwitchRunner(model, switch, vocab_size=vocab_size, reason=reason, device=device)
    if eager is None and grows_with_length(config):
        eager = (
            f"the rotation of {config.model_type} would change with every position past its context of "
            f"{context_length(config):,}"
        )
    if eager is not None:
        return EagerRunner(model, vocab_size=vocab_size, reason=eager, device=device)
    embedding: Any = model.get_input_embeddings()
    if embedding.weight.is_cuda:
        return _graph_runner(model, vocab_size)
    return _cpu_runner(model, vocab_size, packs, threads)


def _cpu_runner(model: PreTrainedModel, vocab_size: int | None, packs: bool, threads: int | None) -> Runner:
    """A runner on ONNX Runtime, else a lean one, else an eager one, with the first one's reason."""
    try:
        require_packages()
        from .onnx.runner import OnnxRunner

        if not packs:
            raise UnsupportedError("its weights would be copied, for which there is not enough memory")
        return OnnxRunner(model, vocab_size=vocab_size, threads=threads)
    except UnsupportedError as error:
        reason = str(error)
    except Exception as error:  # whatever ONNX Runtime does not allow, torch computes it
        reason = f"ONNX Runtime: {quote(error)}"
        release_memory(error)
    try:
        return LeanRunner(model, vocab_size=vocab_size, reason=reason)
    except UnsupportedError:
        return EagerRunner(model, vocab_size=vocab_size, reason=reason)


def _graph_runner(model: PreTrainedModel, vocab_size: int | None) -> Runner:
    """A runner with graphs of the fused or lean forward, else of transformers' modules, else an eager one."""
    attention = model.config._attn_implementation or "sdpa"
    unfused = modules = None
    embedding: Any = model.get_input_embeddings()
    while (failure := capture_refusal(embedding.weight.device)) is None:
        error: Exception | None = None
        try:
            return CudaGraphRunner(model, vocab_size=vocab_size, why_unfused=unfused, why_modules=modules)
        except Exception as raised:
            error = raised
        # Whatever a model or a driver does not allow while capturing, the modules themselves still work.
        model.set_attn_implementation(attention)
        failure = quote(error)
        if modules is not None or out_of_memory(error):
            release_memory(error)
            break
        if unfused is None:
            unfused = failure
        else:
            modules = failure
    reason = f"no CUDA graph of {model.config.model_type}: {failure}"
    return EagerRunner(model, vocab_size=vocab_size, reason=reason)
