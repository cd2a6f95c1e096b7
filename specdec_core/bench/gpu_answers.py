"""Whole answers of the embedded pair: the CPU's text, the baseline's text, milliseconds a token."""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import Literal

from ..engine import Engine, Result
from ..settings import Settings
from ..text.prompting import Message
from ..trace import first_difference
from .gpu_checks import NEAR_TIE
from .gpu_findings import Outcome, verdict
from .gpu_run import StepRun

_CHAT: list[Message] = [{"role": "user", "content": "Tell me a story about a small dog who was lost."}]
_PLAIN = Settings(max_new_tokens=150, temperature=0, gamma=0, seed=1)
_RULES = {
    "greedy": _PLAIN,
    "greedy, repetition penalty": dataclasses.replace(_PLAIN, repetition_penalty=1.2),
    "coupled": dataclasses.replace(_PLAIN, temperature=0.8, verification="coupled"),
    "rejection": dataclasses.replace(_PLAIN, temperature=0.8),
    "rejection, top-p": dataclasses.replace(_PLAIN, temperature=0.8, top_p=0.9),
}
"""The baseline's settings by rule."""
_REPEATABLE = ("greedy", "greedy, repetition penalty", "coupled")
"""Rules under which an answer does not depend on drafts or device."""
_GAMMAS: tuple[int | Literal["auto"], ...] = (0, 1, 2, 4, "auto")


def stories_step(run: StepRun) -> None:
    """Answer with the embedded pair, on the device and on the CPU, by every rule."""
    started = time.perf_counter()
    engine = Engine.load("stories", device=str(run.device))
    load_s = time.perf_counter() - started
    runner, reason = engine.info.runner, engine.info.runner_reason
    figures = {"load_s": load_s, "runner": runner, "reason": reason}
    run.add("load", Outcome("measured", f"{load_s:.1f} s; {runner} runner {reason or ''}", figures))
    host = Engine.load("stories", device="cpu")
    for rule, plain in _RULES.items():
        settings = dataclasses.replace(plain, max_new_tokens=12) if run.smoke else plain
        run.attempt(f"{rule}: times", partial(_times, engine, settings))
        run.attempt(f"{rule}: drafts leave the text", partial(_same_as_baseline, engine, rule, settings))
        run.attempt(f"{rule}: the CPU's text", partial(_same_as_cpu, run, engine, host, rule, settings))
    run.attempt("runners", lambda: _still_fastest(engine, runner))


def _times(engine: Engine, plain: Settings) -> Outcome:
    """Time answers by gamma; the first of each may capture, and is not timed."""
    lines, figures = [], {}
    for gamma in _GAMMAS:
        settings = dataclasses.replace(plain, gamma=gamma)
        engine.generate(_CHAT, settings)
        started = time.perf_counter()
        result = engine.generate(_CHAT, settings)
        ms = 1000 * (time.perf_counter() - started) / len(result.token_ids)
        stats = result.stats
        figures[f"gamma {gamma}"] = {
            "ms_per_token": ms,
            "tokens": len(result.token_ids),
            "decode_rate": stats.tokens_per_second,
            "time_to_first_token_s": stats.time_to_first_token_s,
            "alpha": stats.acceptance_rate,
            "tau": stats.block_efficiency,
        }
        lines.append(f"gamma {gamma} {ms:.3f}")
    return Outcome("measured", f"ms a token: {', '.join(lines)}", figures)


def _same_as_baseline(engine: Engine, rule: str, plain: Settings) -> Outcome:
    baseline = engine.generate(_CHAT, plain)
    drafted = engine.generate(_CHAT, dataclasses.replace(plain, gamma=4))
    return _compared(engine, baseline, drafted, plain, rule)


def _same_as_cpu(run: StepRun, engine: Engine, host: Engine, rule: str, plain: Settings) -> Outcome:
    """Compare the baseline's answers; one of a CPU with itself says nothing."""
    compared = _compared(host, host.generate(_CHAT, plain), engine.generate(_CHAT, plain), plain, rule)
    if run.device.type == "cpu":
        return Outcome("skipped", f"both answers are the CPU's: {compared.description}", compared.figures)
    return compared


def _compared(engine: Engine, wanted: Result, got: Result, settings: Settings, rule: str) -> Outcome:
    """Compare two answers. Under a repeatable rule they may differ from a near tie of `engine` on."""
    length = len(wanted.token_ids)
    same = first_difference(got.token_ids, wanted.token_ids)
    figures = {"tokens": length, "first_difference": same, "text": got.text[:90]}
    if same is None:
        return verdict(True, f"{length} tokens the same", figures)
    if rule not in _REPEATABLE:
        return Outcome("measured", f"{same} of {length} tokens the same; draws may differ", figures)
    margin = engine.margin(_CHAT, wanted.token_ids[:same], settings)
    text = f"{same} of {length} tokens the same, then a margin of {margin:.3f}"
    return verdict(margin < NEAR_TIE, text, {**figures, "margin": margin})


def _still_fastest(engine: Engine, runner: str) -> Outcome:
    """Check that no runner gave its graphs up in the answers."""
    reason = engine.pair.runner_reason
    captured = [getattr(each, "captured", None) for each in engine.pair.runners]
    text = reason or f"{runner} runner, {captured} graphs of target and drafter"
    return verdict(reason is None, text, {"reason": reason, "captured": captured})
