"""What only a GPU can show: captured graphs equal eager steps, one wait a round, bytes, memory given back.

Small random models of each family go through the real loading path, in every quantization that the machine
has the libraries for. Needs no pair and no download.
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

from ..engine import Engine
from ..loading.step_times import step_times
from ..loading.weights import ModelSource, load_model
from ..pair import LoadedPair
from ..runners import EagerRunner, Runner, runner_for
from ..runners.cuda_graph import logit_difference
from ..runners.static import FIRST_BUCKET, StaticRunner
from ..settings import Settings
from ..trace import first_difference
from .gpu_graphs import captured_steps_equal_eager, failing_graph, settings_capture_nothing
from .random_models import FAMILIES, LARGE, SMALL, VOCAB, save_random
from .roofline import bytes_read, copy_bandwidth

TOLERANCE = 0.05
"""Of the logits' spread, for `logit_difference` between bfloat16 kernels of different shapes."""
_WAITS_A_ROUND = 1.0
_FLOORS = {"none": 2.0, "nf4": 3.5}
"""How many times the byte roofline a one-row step may take."""
_PARTS = (FIRST_BUCKET - 15, 1, 1, 2, 5, 9, 1, 5)
"""Rows fed one after the other, across the first bucket's end."""
_KEPT_BYTES = 96 * 2**20
"""What CUDA libraries may keep after a pair is unloaded: workspaces, nothing that grows with the model."""


@dataclass(frozen=True, slots=True)
class GpuCheck:
    name: str
    status: Literal["pass", "fail", "skipped"]
    found: str


@dataclass(frozen=True, slots=True)
class GpuReport:
    device: str
    torch: str
    checks: list[GpuCheck]


def gpu_checks(device: torch.device) -> GpuReport:
    """Runs every check, one that raises being a failed one."""
    with tempfile.TemporaryDirectory(prefix="specdec-gpu-") as root:
        checks = [_checked(*planned) for planned in _plan(Path(root), device)]
    return GpuReport(torch.cuda.get_device_name(device), torch.__version__, checks)


def gpu_check_lines(report: GpuReport) -> list[str]:
    width = max(len(check.name) for check in report.checks)
    counts = Counter(check.status for check in report.checks)
    return [
        f"{report.device}, torch {report.torch}",
        *(f"{check.status:<7}  {check.name:<{width}}  {check.found}" for check in report.checks),
        ", ".join(f"{count} {status}" for status, count in counts.items()),
    ]


Check = Callable[[], tuple[bool, str]]
"""Whether it is as it should be, and what was found."""


def _plan(root: Path, device: torch.device) -> Iterator[tuple[str, str, Check]]:
    """Name, quantization that must be possible for it, and check."""
    folders = {
        family: save_random(root / family, family, SMALL | extra, device)
        for family, extra in FAMILIES.items()
    }
    for quantization in ("none", "nf4", "int8"):
        for family, folder in folders.items():
            name = f"capture equals eager: {family}, {_held_as(quantization)}"
            yield name, quantization, partial(capture_equals_eager, folder, quantization, device)
    for quantization in ("none", "nf4"):
        pair = f"bf16 target, {_held_as(quantization)} drafter"
        for settings in _SETTINGS:
            check = partial(_waits_a_round, folders["llama"], quantization, settings, device)
            yield f"one wait a round: {pair}, {_rule(settings)}", quantization, check
        check = partial(greedy_equals_baseline, folders["llama"], quantization, device)
        yield f"greedy equals the baseline: {pair}", quantization, check
    model = partial(_load, folders["llama"], "none", device)
    for settings in (*_SETTINGS, _FILTERED):
        name = f"captured draft steps and verification equal uncaptured ones: {_rule(settings)}"
        yield name, "none", partial(captured_steps_equal_eager, model, settings)
    yield "new settings capture nothing", "none", partial(settings_capture_nothing, model, _FILTERED)
    check = partial(_first_answer_captures_nothing, folders["llama"], device)
    yield "after the warm-up a first answer captures nothing", "none", check
    yield "a failing graph does not break an answer", "none", partial(failing_graph, model, _SETTINGS[0])
    large = save_random(root / "large", "llama", LARGE, device)
    for quantization in ("none", "nf4"):
        name = f"one-row step against the byte roofline: 1 B, {_held_as(quantization)}"
        yield name, quantization, partial(_against_roofline, large, quantization, device)
    yield "unload gives memory back", "none", partial(_unload_gives_back, large, device)


_SETTINGS = (
    Settings(max_new_tokens=96, temperature=0, gamma=4, seed=1),
    Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1),
    Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1, verification="coupled"),
)


_FILTERED = Settings(max_new_tokens=96, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, gamma=4, seed=1)


def _rule(settings: Settings) -> str:
    rule = "greedy" if settings.temperature == 0 else settings.verification
    return f"{rule}, filtered" if settings.top_k else rule


def _checked(name: str, quantization: str, check: Check) -> GpuCheck:
    if quantization != "none" and importlib.util.find_spec("bitsandbytes") is None:
        return GpuCheck(name, "skipped", "bitsandbytes is not installed")
    try:
        good, found = check()
    except Exception as error:
        good, found = False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    gc.collect()
    torch.cuda.empty_cache()
    return GpuCheck(name, "pass" if good else "fail", found)


def _held_as(quantization: str) -> str:
    return "bf16" if quantization == "none" else quantization


def _load(folder: Path, quantization: str, device: torch.device):
    return load_model(ModelSource(str(folder), quantization=quantization), device)


def capture_equals_eager(folder: Path, quantization: str, device: torch.device) -> tuple[bool, str]:
    """The same rows through graphs of the lean forward and through transformers' modules; in int8 and NF4 the
    kernels depend on the number of rows.
    """
    fast = runner_for(_load(folder, quantization, device))
    if fast.name == "eager":
        return False, fast.reason or "no graph was captured"
    eager = EagerRunner(_load(folder, quantization, device))
    ids = torch.randint(3, VOCAB, (sum(_PARTS),), generator=torch.Generator().manual_seed(1)).to(device)
    wanted, got = _logits(eager, ids), _logits(fast, ids)
    found = logit_difference(got, wanted)
    agree = (got.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    modules = isinstance(fast, StaticRunner) and fast.why_modules
    forward = f"not the lean forward: {modules}; " if modules else ""
    return found < TOLERANCE and not forward, (
        f"{forward}difference {found:.4f} of the spread (rms), {agree:.1%} of the argmaxes agree"
    )


def _logits(runner: Runner, ids: torch.Tensor) -> torch.Tensor:
    """Logits of every row [rows, vocab]; a rewind in the middle must leave no trace."""
    cache = runner.new_cache()
    found = []
    for part in ids.split(_PARTS):
        held = cache.length
        if part.shape[0] <= 9:
            runner.forward(cache, part.flip(0))
            cache.rewind(held)
        found.append(runner.forward(cache, part).float().clone())
    return torch.cat(found)


@contextmanager
def _engine(folder: Path, drafter_quantization: str, device: torch.device) -> Iterator[Engine]:
    """A bf16 target drafted by its own copy, held in `drafter_quantization`."""
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


def _waits_a_round(
    folder: Path, drafter_quantization: str, settings: Settings, device: torch.device
) -> tuple[bool, str]:
    """Counts how often a round makes the host wait. A first answer captures what there is to capture."""
    with _engine(folder, drafter_quantization, device) as engine:
        engine.generate(_PROMPT, settings)
        waits, rounds = [], 0
        for rnd in _warned(engine.stream(_PROMPT, settings), waits):
            rounds += rnd.index > 0
    per_round = sum(waits[1:]) / max(1, rounds)
    # Fewer would say that the waits were not seen: what a round decided has to come to the host.
    return abs(per_round - _WAITS_A_ROUND) <= 0.05, f"{per_round:.2f} waits a round over {rounds} rounds"


def _warned(rounds, waits: list[int]) -> Iterator:
    """The same rounds; the number of synchronizing calls that CUDA warned of in each goes into `waits`."""
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
        waits.append(sum("synchroniz" in str(warning.message) for warning in caught))
        yield rnd


def greedy_equals_baseline(folder: Path, drafter_quantization: str, device: torch.device) -> tuple[bool, str]:
    """Up to the first token where bfloat16 kernels of several rows round a near tie the other way."""
    with _engine(folder, drafter_quantization, device) as engine:
        plain = engine.generate(_PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=0))
        drafted = engine.generate(_PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=4))
        same = first_difference(plain.token_ids, drafted.token_ids)
        alpha = drafted.stats.acceptance_rate or 0.0
        if same is None:
            return True, f"{len(plain.token_ids)} tokens, alpha {alpha:.2f}"
        context = plain.prompt_token_ids + plain.token_ids[:same]
        target = engine.pair.target
        best = target.prefill(target.new_cache(), context).float().topk(2).values[0]
        margin = (best[0] - best[1]).item()
        return margin < 0.25, f"from token {same} on another text, margin {margin:.3f}, alpha {alpha:.2f}"


def _first_answer_captures_nothing(folder: Path, device: torch.device) -> tuple[bool, str]:
    with _engine(folder, "none", device) as engine:
        pair = engine.pair
        before = pair.target.captured, pair.drafter.captured
        engine.generate(_PROMPT, replace(engine.default_settings, max_new_tokens=96, seed=1))
        after = pair.target.captured, pair.drafter.captured
        reason = pair.runner_reason
    good = before == after and min(before) > 0 and reason is None
    return good, reason or f"{before} graphs of target and drafter, after an answer {after}"


def _against_roofline(folder: Path, quantization: str, device: torch.device) -> tuple[bool, str]:
    runner = runner_for(_load(folder, quantization, device))
    pair = LoadedPair(runner, None, None, frozenset())
    times = step_times(pair, context=128, rows=[1, 5], repetitions=50)
    floor_s = bytes_read(runner) / copy_bandwidth(device)
    ratio = times.target_s[1] / floor_s
    return ratio <= _FLOORS[quantization], (
        f"{1000 * times.target_s[1]:.2f} ms, {ratio:.2f} × the floor of {1000 * floor_s:.2f} ms (at most "
        f"{_FLOORS[quantization]:g}); 5 rows cost {times.v(5):.2f} × one; {runner.name} runner"
    )


def _unload_gives_back(folder: Path, device: torch.device) -> tuple[bool, str]:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device), torch.cuda.memory_reserved(device)
    engine = Engine.load(target=str(folder), drafter=str(folder), device=str(device), quantization="none")
    engine.generate(_PROMPT, Settings(max_new_tokens=32, temperature=0, gamma=4))
    during = torch.cuda.memory_allocated(device)
    engine.unload()
    kept = torch.cuda.memory_allocated(device) - before[0], torch.cuda.memory_reserved(device) - before[1]
    return max(kept) <= _KEPT_BYTES, (
        f"{during / 1e6:.0f} MB in use, afterwards {kept[0] / 1e6:.0f} MB more allocated and "
        f"{kept[1] / 1e6:.0f} MB more reserved than before"
    )


_PROMPT = " ".join(f"w{n}" for n in range(3, 200, 7))
