"""GPU checks: captured graphs against eager steps, host synchronizations, memory roofline, unloading.

Small random models of each family are loaded like any model, in every quantization whose libraries are
installed. Needs no pair and no download.
"""

from __future__ import annotations

import gc
import importlib.util
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from ..engine import Engine
from ..errors import quote
from ..loading.step_times import step_times
from ..loading.weights import ModelSource, load_model
from ..pair import LoadedPair, token_margin
from ..runners import EagerRunner, Runner, runner_for
from ..runners.cuda_graph import logit_difference
from ..runners.static import FIRST_BUCKET, StaticRunner
from ..settings import QUANTIZATIONS, Quantization, Settings
from ..trace import Round, first_difference
from .gpu_graphs import captured_steps_equal_eager, failing_graph, settings_capture_nothing
from .random_models import FAMILIES, LARGE, SMALL, VOCAB, save_random
from .roofline import bytes_read, copy_bandwidth
from .shapes import word_tokenizer

TOLERANCE = 0.05
"""Tolerance of `logit_difference` between bfloat16 kernels of different shapes, in spreads of the logits."""
_SYNCS_PER_ROUND = 1.0
_ROOFLINE_LIMITS: dict[Quantization, float] = {"none": 2.0, "nf4": 3.5}
"""Most that a one-row step may take, in multiples of the memory roofline."""
_PARTS = (FIRST_BUCKET - 15, 1, 1, 2, 5, 9, 1, 5)
"""Rows of consecutive forwards, which cross the end of the first bucket."""
_LEFTOVER_BYTES = 96 * 2**20
"""Most that may stay allocated after unloading: workspaces of CUDA libraries, independent of the model."""


@dataclass(frozen=True, slots=True)
class GpuCheck:
    """The result of one check; `found` describes it."""

    name: str
    status: Literal["pass", "fail", "skipped"]
    found: str


@dataclass(frozen=True, slots=True)
class GpuReport:
    """The results of all checks on a device, with torch's version."""

    device: str
    torch: str
    checks: list[GpuCheck]


def gpu_checks(device: torch.device) -> GpuReport:
    """Run every check. One that raises counts as failed."""
    with tempfile.TemporaryDirectory(prefix="specdec-gpu-") as root:
        checks = [_run(planned) for planned in _plan(Path(root), device)]
    return GpuReport(torch.cuda.get_device_name(device), torch.__version__, checks)


def gpu_check_lines(report: GpuReport) -> list[str]:
    """Return the report as lines of text, one for each check, then counts by status."""
    width = max(len(check.name) for check in report.checks)
    counts = Counter(check.status for check in report.checks)
    return [
        f"{report.device}, torch {report.torch}",
        *(f"{check.status:<7}  {check.name:<{width}}  {check.found}" for check in report.checks),
        ", ".join(f"{count} {status}" for status, count in counts.items()),
    ]


Check = Callable[[], tuple[bool, str]]
"""A check. Returns True if it passed, and a description of the result."""


@dataclass(frozen=True, slots=True)
class _Planned:
    """A check to run if the libraries of its quantization are installed."""

    name: str
    quantization: Quantization
    check: Check


def _plan(root: Path, device: torch.device) -> Iterator[_Planned]:
    folders = {
        family: save_random(root / family, family, SMALL | extra, device)
        for family, extra in FAMILIES.items()
    }
    for quantization in QUANTIZATIONS:
        for family, folder in folders.items():
            name = f"capture equals eager: {family}, {_format(quantization)}"
            yield _Planned(name, quantization, partial(capture_equals_eager, folder, quantization, device))
    yield from _plan_rounds(folders["llama"], device)
    yield from _plan_graphs(folders["llama"], device)
    large = save_random(root / "large", "llama", LARGE, device)
    for quantization in _ROOFLINE_LIMITS:
        name = f"one-row step against the byte roofline: 1 B, {_format(quantization)}"
        yield _Planned(name, quantization, partial(_against_roofline, large, quantization, device))
    yield _Planned("unload gives memory back", "none", partial(_unload_gives_back, large, device))


def _plan_rounds(folder: Path, device: torch.device) -> Iterator[_Planned]:
    quantizations: tuple[Quantization, ...] = ("none", "nf4")
    for quantization in quantizations:
        pair = f"bf16 target, {_format(quantization)} drafter"
        for settings in _SETTINGS:
            check = partial(_syncs_per_round, folder, quantization, settings, device)
            yield _Planned(f"one wait a round: {pair}, {_rule(settings)}", quantization, check)
        check = partial(greedy_equals_baseline, folder, quantization, device)
        yield _Planned(f"greedy equals the baseline: {pair}", quantization, check)


def _plan_graphs(folder: Path, device: torch.device) -> Iterator[_Planned]:
    model = partial(_load, folder, "none", device)
    for settings in (*_SETTINGS, _FILTERED):
        name = f"captured draft steps and verification equal uncaptured ones: {_rule(settings)}"
        yield _Planned(name, "none", partial(captured_steps_equal_eager, model, settings))
    check = partial(settings_capture_nothing, model, _FILTERED)
    yield _Planned("new settings capture nothing", "none", check)
    check = partial(_first_answer_captures_nothing, folder, device)
    yield _Planned("after the warm-up a first answer captures nothing", "none", check)
    check = partial(failing_graph, model, _SETTINGS[0])
    yield _Planned("a failing graph does not break an answer", "none", check)


_SETTINGS = (
    Settings(max_new_tokens=96, temperature=0, gamma=4, seed=1),
    Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1),
    Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1, verification="coupled"),
)
_FILTERED = Settings(max_new_tokens=96, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, gamma=4, seed=1)


def _rule(settings: Settings) -> str:
    rule = "greedy" if settings.temperature == 0 else settings.verification
    return f"{rule}, filtered" if settings.top_k else rule


def _run(planned: _Planned) -> GpuCheck:
    if planned.quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        return GpuCheck(planned.name, "skipped", "bitsandbytes is not installed")
    try:
        good, description = planned.check()
    except Exception as error:
        good = False
        description = quote(error)
    gc.collect()
    torch.cuda.empty_cache()
    return GpuCheck(planned.name, "pass" if good else "fail", description)


def _format(quantization: Quantization) -> str:
    return "bf16" if quantization == "none" else quantization


def _load(folder: Path, quantization: Quantization, device: torch.device) -> PreTrainedModel:
    return load_model(ModelSource(str(folder), quantization=quantization), device)


def capture_equals_eager(folder: Path, quantization: Quantization, device: torch.device) -> tuple[bool, str]:
    """Compare logits of the same rows from graphs of the lean forward and from transformers' modules.

    Returns True if they agree within TOLERANCE (int8 and NF4 kernels depend on the number of rows), and a
    description.
    """
    fast = runner_for(_load(folder, quantization, device))
    if fast.name == "eager":
        return False, fast.reason or "no graph was captured"
    eager = EagerRunner(_load(folder, quantization, device))
    ids = torch.randint(3, VOCAB, (sum(_PARTS),), generator=torch.Generator().manual_seed(1)).to(device)
    wanted, got = _logits(eager, ids), _logits(fast, ids)
    difference = logit_difference(got, wanted)
    agree = (got.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    modules = isinstance(fast, StaticRunner) and fast.why_modules
    forward = f"not the lean forward: {modules}; " if modules else ""
    return difference < TOLERANCE and not forward, (
        f"{forward}difference {difference:.4f} of the spread (rms), {agree:.1%} of the argmaxes agree"
    )


def _logits(runner: Runner, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every row [rows, vocab], with rewinds in between that must have no effect."""
    cache = runner.new_cache()
    logits = []
    for part in ids.split(_PARTS):
        length = cache.length
        if part.shape[0] <= 9:
            runner.forward(cache, part.flip(0))
            cache.rewind(length)
        logits.append(runner.forward(cache, part).float().clone())
    return torch.cat(logits)


@contextmanager
def _engine(folder: Path, drafter_quantization: Quantization, device: torch.device) -> Iterator[Engine]:
    """A bf16 target with its own copy as the drafter, in `drafter_quantization`."""
    engine = Engine.load(target=str(folder), drafter=str(folder), device=str(device), quantization="none")
    try:
        if drafter_quantization != "none":
            pair = engine.pair
            drafter = runner_for(_load(folder, drafter_quantization, device))
            mixed = LoadedPair(pair.target, drafter, pair.tokenizer, pair.eos_ids, dict(pair.costs))
            yield Engine(mixed, engine.info)
        else:
            yield engine
    finally:
        engine.unload()


def _syncs_per_round(
    folder: Path, drafter_quantization: Quantization, settings: Settings, device: torch.device
) -> tuple[bool, str]:
    """Count host synchronizations per round, after a first answer that captures the graphs."""
    with _engine(folder, drafter_quantization, device) as engine:
        engine.generate(_PROMPT, settings)
        syncs = [count for rnd, count in _with_syncs(engine.stream(_PROMPT, settings)) if rnd.index > 0]
    per_round = sum(syncs) / max(1, len(syncs))
    # Fewer than one means that CUDA's warnings were missed: the verdict of a round has to reach the host.
    good = abs(per_round - _SYNCS_PER_ROUND) <= 0.05
    return good, f"{per_round:.2f} waits a round over {len(syncs)} rounds"


def _with_syncs(rounds: Iterator[Round]) -> Iterator[tuple[Round, int]]:
    """Each round with the number of synchronizing calls in it, which CUDA reports as warnings."""
    while True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                rnd = next(rounds, None)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        if rnd is None:
            return
        yield rnd, sum("synchroniz" in str(warning.message) for warning in caught)


def greedy_equals_baseline(
    folder: Path, drafter_quantization: Quantization, device: torch.device
) -> tuple[bool, str]:
    """Compare a greedy speculative answer with the baseline's.

    Returns True if they are equal up to a near tie, which bfloat16 kernels of several rows may round
    differently, and a description.
    """
    with _engine(folder, drafter_quantization, device) as engine:
        plain = engine.generate(_PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=0))
        drafted = engine.generate(_PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=4))
        same = first_difference(plain.token_ids, drafted.token_ids)
        alpha = drafted.stats.acceptance_rate or 0.0
        if same is None:
            return True, f"{len(plain.token_ids)} tokens, alpha {alpha:.2f}"
        context = plain.prompt_token_ids + plain.token_ids[:same]
        margin = token_margin(engine.pair, context, Settings(temperature=0))
        return margin < 0.25, f"from token {same} on another text, margin {margin:.3f}, alpha {alpha:.2f}"


def _first_answer_captures_nothing(folder: Path, device: torch.device) -> tuple[bool, str]:
    with _engine(folder, "none", device) as engine:
        pair = engine.pair
        before = tuple(runner.captured for runner in pair.runners)
        engine.generate(_PROMPT, replace(engine.default_settings, max_new_tokens=96, seed=1))
        after = tuple(runner.captured for runner in pair.runners)
        reason = pair.runner_reason
    good = before == after and min(before) > 0 and reason is None
    return good, reason or f"{before} graphs of target and drafter, after an answer {after}"


def _against_roofline(folder: Path, quantization: Quantization, device: torch.device) -> tuple[bool, str]:
    runner = runner_for(_load(folder, quantization, device))
    pair = LoadedPair(runner, None, word_tokenizer(VOCAB), frozenset())
    times = step_times(pair, context=128, rows=[1, 5], repetitions=50)
    floor_s = bytes_read(runner) / copy_bandwidth(device)
    ratio, limit = times.target_s[1] / floor_s, _ROOFLINE_LIMITS[quantization]
    return ratio <= limit, (
        f"{1000 * times.target_s[1]:.2f} ms, {ratio:.2f} × the floor of {1000 * floor_s:.2f} ms (at most "
        f"{limit:g}); 5 rows cost {times.v(5):.2f} × one; {runner.name} runner"
    )


def _unload_gives_back(folder: Path, device: torch.device) -> tuple[bool, str]:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    engine = Engine.load(target=str(folder), drafter=str(folder), device=str(device), quantization="none")
    engine.generate(_PROMPT, Settings(max_new_tokens=32, temperature=0, gamma=4))
    during = torch.cuda.memory_allocated(device)
    engine.unload()
    allocated = torch.cuda.memory_allocated(device) - before[0]
    reserved = torch.cuda.memory_reserved(device) - before[1]
    return max(allocated, reserved) <= _LEFTOVER_BYTES, (
        f"{during / 1e6:.0f} MB in use, afterwards {allocated / 1e6:.0f} MB more allocated and "
        f"{reserved / 1e6:.0f} MB more reserved than before"
    )


_PROMPT = " ".join(f"w{n}" for n in range(3, 200, 7))
