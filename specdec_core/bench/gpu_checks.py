"""Checks of small random models on a GPU: graphs against eager steps, rounds against the baseline, waits.

Models of each family are loaded like any model, in a quantization whose libraries are installed. Needs no
download.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..engine import Engine
from ..pair import LoadedPair, token_margin
from ..runners import EagerRunner, Runner, runner_for
from ..runners.cuda_graph import logit_difference
from ..runners.static import FIRST_BUCKET, StaticRunner
from ..settings import Quantization, Settings
from ..trace import Round, first_difference
from .gpu_findings import Outcome, verdict
from .gpu_graphs import RULES, graph_runner
from .gpu_run import StepRun, format_name
from .random_models import FAMILIES, SMALL, VOCAB, save_random

TOLERANCE = 0.05
"""Tolerance of `logit_difference` between bfloat16 kernels of different shapes, in spreads of the logits."""
NEAR_TIE = 0.25
"""Difference of the two best logits below which bfloat16 kernels of different shapes may order them
differently."""
PROMPT = " ".join(f"w{n}" for n in range(3, 200, 7))
_SYNCS_PER_ROUND = 1.0
_PARTS = (FIRST_BUCKET - 15, 1, 1, 2, 5, 9, 1, 5)
"""Rows of consecutive forwards, which cross the end of the first bucket."""


def capture_step(quantization: Quantization, run: StepRun) -> None:
    """Compare the graphs of each family with eager steps, in one quantization."""
    for family, extra in FAMILIES.items():

        def compared(family: str = family, extra: dict[str, int] = extra) -> Outcome:
            folder = save_random(run.folder / family, family, SMALL | extra, run.device)
            return capture_equals_eager(run, folder, quantization)

        run.attempt(f"capture equals eager: {family}, {format_name(quantization)}", compared, quantization)


def rounds_step(run: StepRun) -> None:
    """Count host synchronizations a round, and compare greedy answers with the baseline's."""
    folder = save_random(run.folder / "llama", "llama", SMALL, run.device)
    quantizations: tuple[Quantization, ...] = ("none", "nf4")
    for quantization in quantizations:
        pair = f"bf16 target, {format_name(quantization)} drafter"
        for rule, settings in RULES.items():
            check = partial(waits_a_round, run, folder, quantization, settings)
            run.attempt(f"one wait a round: {pair}, {rule}", check, quantization)
        check = partial(greedy_equals_baseline, run, folder, quantization)
        run.attempt(f"greedy equals the baseline: {pair}", check, quantization)
    check = partial(first_answer_captures_nothing, run, folder)
    run.attempt("after the warm-up a first answer captures nothing", check)


def capture_equals_eager(run: StepRun, folder: Path, quantization: Quantization) -> Outcome:
    """Compare logits of the same rows from graphs of the fastest forward and from transformers' modules.

    Passes if they agree within TOLERANCE: int8 and NF4 kernels depend on the number of rows. Raises
    RuntimeError if nothing was captured.
    """
    fast = graph_runner(run.load(folder, quantization))
    eager = EagerRunner(run.load(folder, quantization))
    ids = torch.randint(3, VOCAB, (sum(_PARTS),), generator=torch.Generator().manual_seed(1)).to(run.device)
    wanted, got = _logits(eager, ids), _logits(fast, ids)
    difference = logit_difference(got, wanted)
    agree = (got.argmax(-1) == wanted.argmax(-1)).float().mean().item()
    slower = fast.why_modules or (fast.why_unfused if run.device.type == "cuda" else None)
    forward = f"not the fastest forward: {slower}; " if slower else ""
    return verdict(
        difference < TOLERANCE and not slower,
        f"{forward}difference {difference:.4f} of the spread (rms), {agree:.1%} of the argmaxes agree",
        {"difference": difference, "argmaxes_agree": agree, **forward_figures(fast)},
    )


def forward_figures(runner: StaticRunner) -> dict[str, str | None]:
    """Return the reasons against the faster forwards of a runner; None for those in use."""
    return {"why_unfused": runner.why_unfused, "why_modules": runner.why_modules}


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
def loaded_pair(run: StepRun, folder: Path, drafter_quantization: Quantization = "none") -> Iterator[Engine]:
    """A bf16 target with its own copy as the drafter, in `drafter_quantization`."""
    engine = Engine.load(target=str(folder), drafter=str(folder), device=str(run.device), quantization="none")
    try:
        if drafter_quantization != "none":
            pair = engine.pair
            drafter = runner_for(run.load(folder, drafter_quantization))
            mixed = LoadedPair(pair.target, drafter, pair.tokenizer, pair.eos_ids, dict(pair.costs))
            yield Engine(mixed, engine.info)
        else:
            yield engine
    finally:
        engine.unload()


def waits_a_round(
    run: StepRun, folder: Path, drafter_quantization: Quantization, settings: Settings
) -> Outcome:
    """Count host synchronizations per round, after a first answer that captures the graphs."""
    on_gpu = run.device.type == "cuda"
    with loaded_pair(run, folder, drafter_quantization) as engine:
        engine.generate(PROMPT, settings)
        rounds = _with_waits(engine.stream(PROMPT, settings), on_gpu)
        waits = [count for rnd, count in rounds if rnd.index > 0]
    if not on_gpu:
        return Outcome("skipped", f"{len(waits)} rounds; a CPU has no waits to count")
    per_round = sum(waits) / max(1, len(waits))
    # Fewer than one means that CUDA's warnings were missed: the verdict of a round has to reach the host.
    return verdict(
        abs(per_round - _SYNCS_PER_ROUND) <= 0.05,
        f"{per_round:.2f} waits a round over {len(waits)} rounds",
        {"waits_per_round": per_round, "rounds": len(waits)},
    )


def _with_waits(rounds: Iterator[Round], on_gpu: bool) -> Iterator[tuple[Round, int]]:
    """Each round with the number of synchronizing calls in it, which CUDA reports as warnings."""
    while True:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if on_gpu:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                rnd = next(rounds, None)
            finally:
                if on_gpu:
                    torch.cuda.set_sync_debug_mode("default")
        if rnd is None:
            return
        yield rnd, sum("synchroniz" in str(warning.message) for warning in caught)


def greedy_equals_baseline(run: StepRun, folder: Path, drafter_quantization: Quantization) -> Outcome:
    """Compare a greedy speculative answer with the baseline's. Passes if they are equal up to a near tie."""
    with loaded_pair(run, folder, drafter_quantization) as engine:
        plain = engine.generate(PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=0))
        drafted = engine.generate(PROMPT, Settings(max_new_tokens=96, temperature=0, gamma=4))
        same = first_difference(plain.token_ids, drafted.token_ids)
        alpha = drafted.stats.acceptance_rate or 0.0
        figures = {"tokens": len(plain.token_ids), "alpha": alpha, "first_difference": same}
        if same is None:
            return verdict(True, f"{len(plain.token_ids)} tokens, alpha {alpha:.2f}", figures)
        context = plain.prompt_token_ids + plain.token_ids[:same]
        margin = token_margin(engine.pair, context, len(plain.prompt_token_ids), Settings(temperature=0))
        text = f"from token {same} on another text, margin {margin:.3f}, alpha {alpha:.2f}"
        return verdict(margin < NEAR_TIE, text, {**figures, "margin": margin})


def first_answer_captures_nothing(run: StepRun, folder: Path) -> Outcome:
    """Count the graphs of a loaded pair before and after its first answer."""
    with loaded_pair(run, folder) as engine:
        pair = engine.pair
        if run.device.type != "cuda":
            engine.generate(PROMPT, replace(engine.default_settings, max_new_tokens=8, seed=1))
            return Outcome("skipped", "the runners of a CPU have no graphs")
        before = [runner.captured for runner in pair.runners]
        engine.generate(PROMPT, replace(engine.default_settings, max_new_tokens=96, seed=1))
        after = [runner.captured for runner in pair.runners]
        reason = pair.runner_reason
    return verdict(
        before == after and min(before) > 0 and reason is None,
        reason or f"{before} graphs of target and drafter, after an answer {after}",
        {"before": before, "after": after},
    )
