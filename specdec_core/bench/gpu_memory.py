"""Memory on a GPU: an answer that runs out of it, a capture that fails, and a pair that is unloaded."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..engine import Engine
from ..errors import AnswerError, quote
from ..runners import EagerRunner, runner_for
from ..runners.cuda_capture import CaptureRefusedError, CudaCapture
from ..runners.cuda_graph import logit_difference
from ..settings import Settings
from .gpu_checks import PROMPT, TOLERANCE, loaded_pair
from .gpu_findings import Outcome, verdict
from .gpu_run import StepRun
from .random_models import LARGE, SMALL, VOCAB, save_random

_LEFTOVER_BYTES = 96 * 2**20
"""Most that may stay allocated after unloading: workspaces of CUDA libraries, independent of the model."""
_LONG_CONTEXT = {
    **SMALL,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 16384,
}
"""A model of little weight whose keys and values take 16 KiB a position."""
_LONG_PROMPT = 12_000
_ROOM_BYTES = 48 * 2**20
"""Memory beyond what is in use when the long prompt comes, which needs 256 MiB for one model alone."""
_GREEDY = Settings(max_new_tokens=60, temperature=0, gamma=4)


def memory_step(run: StepRun) -> None:
    """Let memory run out during an answer, then unload a large pair."""
    run.attempt("memory runs out in an answer", lambda: _runs_out(run))
    run.attempt("unload gives memory back", lambda: _unload_gives_back(run))


def failed_capture_step(run: StepRun) -> None:
    """Let captures fail, then look at the stream, the allocator, the next capture and a model's answers."""
    if run.device.type != "cuda":
        run.add("a failed capture", Outcome("skipped", "a capture needs a CUDA device"))
        return
    x = torch.ones(4, device=run.device)
    current = torch.cuda.current_stream(run.device)

    def waits() -> Tensor:
        return x * x.sum().item()

    def waits_late() -> Tensor:
        return waits() if torch.cuda.is_current_stream_capturing() else x * 2

    def restored() -> Outcome:
        now = torch.cuda.current_stream(run.device)
        return verdict(now == current, f"current stream {now}, before {current}")

    for name, function in (("while it warms up", waits), ("while it is recorded", waits_late)):
        run.attempt(f"a function that waits {name} is not captured", partial(_raises, run, function))
        run.attempt(f"{name}: the stream is restored", restored)
        run.attempt(f"{name}: memory is given back", partial(_gives_back, run))
        for turn in ("first", "second"):
            run.attempt(f"{name}: the {turn} capture after it", partial(_captures, run, x))
    run.attempt("a model computes the same after failed captures", lambda: _still_serves(run))


def _raises(run: StepRun, function: Callable[[], Tensor]) -> Outcome:
    try:
        CudaCapture(run.device)(function)
    except Exception as error:
        return verdict(True, quote(error))
    return verdict(False, "a function that waits for the device was captured")


def _gives_back(run: StepRun) -> Outcome:
    block = torch.empty(2**30, dtype=torch.uint8, device=run.device)
    before = torch.cuda.memory_reserved(run.device)
    del block
    torch.cuda.empty_cache()
    returned = before - torch.cuda.memory_reserved(run.device)
    return verdict(returned >= 2**30, f"{returned / 2**20:.0f} of 1024 MiB", {"bytes": returned})


def _captures(run: StepRun, x: Tensor) -> Outcome:
    """Capture and replay a product. A refusal that says why is safe as well: models go on without graphs."""
    try:
        replay, result = CudaCapture(run.device)(lambda: x * 3)
    except CaptureRefusedError as error:
        return Outcome("measured", str(error))
    result.zero_()
    replay()
    values = result.tolist()
    return verdict(values == [3.0] * 4, f"replayed {values}", {"values": values})


@torch.inference_mode()
def _still_serves(run: StepRun) -> Outcome:
    """Compare the rows of whichever runner a model gets now with transformers' modules."""
    folder = save_random(run.folder / "llama", "llama", SMALL, run.device)
    runner, eager = runner_for(run.load(folder, "none")), EagerRunner(run.load(folder, "none"))
    ids = torch.arange(3, 40, device=run.device)
    got, wanted = (
        torch.cat([each.forward(cache, part).float().clone() for part in ids.split([32, 5])])
        for each, cache in ((runner, runner.new_cache()), (eager, eager.new_cache()))
    )
    difference = logit_difference(got, wanted)
    text = f"{runner.name} runner, {runner.reason or 'no reason'}; difference {difference:.4f} of the spread"
    figures = {"difference": difference, "runner": runner.name, "reason": runner.reason}
    return verdict(difference < TOLERANCE, text, figures)


def _runs_out(run: StepRun) -> Outcome:
    """Bound the memory so that a long prompt does not fit. Passes if its answer ends with AnswerError and the
    next one is undisturbed.
    """
    folder = save_random(run.folder / "long", "llama", _LONG_CONTEXT, run.device)
    tokens = 600 if run.smoke else _LONG_PROMPT
    long_prompt = " ".join(f"w{3 + n % (VOCAB - 3)}" for n in range(tokens))
    with loaded_pair(run, folder) as engine:
        wanted = engine.generate(PROMPT, _GREEDY).token_ids
        idle = [engine.session() for _ in range(4)]
        for session in idle:
            engine.generate(PROMPT, _GREEDY, session)
        with _bounded_memory(run.device):
            error = _error_of(engine, long_prompt)
        after = engine.generate(PROMPT, _GREEDY).token_ids
        reason = engine.pair.runner_reason
    if run.device.type != "cuda":
        return Outcome("skipped", f"a CPU's memory is not bounded; {error or 'the prompt was answered'}")
    return verdict(
        isinstance(error, AnswerError) and after == wanted and reason is None,
        f"{error or 'the prompt was answered'}; {reason or 'graphs still in use'}; the next answer is "
        f"{'the same' if after == wanted else 'another'}",
        {"error": None if error is None else type(error).__name__, "reason": reason},
    )


def _error_of(engine: Engine, prompt: str) -> Exception | None:
    try:
        engine.generate(prompt, _GREEDY)
    except Exception as error:
        # Without its traceback, whose frames would keep the memory.
        return error.with_traceback(None)
    return None


@contextmanager
def _bounded_memory(device: torch.device) -> Iterator[None]:
    """Bound the process's memory on a GPU to what it has in use and a little room. A CPU's is not bounded."""
    if device.type != "cuda":
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved(device) + _ROOM_BYTES) / total, device
    )
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)


def _unload_gives_back(run: StepRun) -> Outcome:
    folder = save_random(run.folder / "large", "llama", SMALL if run.smoke else LARGE, run.device)
    gc.collect()
    if run.device.type != "cuda":
        _load_and_unload(run, folder)
        return Outcome("skipped", "loaded, answered, unloaded; a CPU's memory is not counted")
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(run.device), torch.cuda.memory_reserved(run.device)
    during = _load_and_unload(run, folder)
    allocated = torch.cuda.memory_allocated(run.device) - before[0]
    reserved = torch.cuda.memory_reserved(run.device) - before[1]
    return verdict(
        max(allocated, reserved) <= _LEFTOVER_BYTES,
        f"{during / 1e6:.0f} MB in use, afterwards {allocated / 1e6:.0f} MB more allocated and "
        f"{reserved / 1e6:.0f} MB more reserved than before",
        {"during": during, "allocated": allocated, "reserved": reserved},
    )


def _load_and_unload(run: StepRun, folder: Path) -> int:
    """Return the bytes in use while the pair was loaded; 0 on a CPU."""
    with loaded_pair(run, folder) as engine:
        engine.generate(PROMPT, Settings(max_new_tokens=32, temperature=0, gamma=4))
        return torch.cuda.memory_allocated(run.device) if run.device.type == "cuda" else 0
