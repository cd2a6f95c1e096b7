"""The bench command: loads a pair, measures it, and prints tables or one JSON object."""

from __future__ import annotations

import dataclasses
import datetime
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from ..engine import Engine
from ..llama_cpp import LlamaCpp
from ..loading.step_times import StepTimer
from ..pair import LoadedPair
from ..settings import Drafting, Settings
from ..strict_json import to_json
from ..text.prompting import Prompt
from .chart import chart_svg
from .distribution import distribution, distribution_lines
from .exactness import exactness, exactness_lines
from .figures import ASSISTED, BASELINE, LLAMA_CPP, PEER, Table, table
from .formats import formats, formats_lines
from .history import HISTORIES, history, history_lines
from .lanes import Lane, measure, our_answer
from .llama_cpp import llama_cpp_answer, require_llama_cpp
from .machine import machine_name, memory_in_use, versions
from .noise import with_noisy_drafter
from .options import BenchOptions, require_valid
from .peers import peer_answer
from .prompts import has_template, prompt_set, retold
from .report import BenchReport, report_lines
from .romsto import Romsto
from .roofline import roofline
from .shapes import bigram_pair, bigram_prompts

_MOST_ROWS = 8
"""Drafts whose verification is timed at least, so that tables of different runs compare."""
_STEP_REPETITIONS = 5


def run(options: BenchOptions, load: Callable[..., Engine]) -> int:
    """Measure and print. Return the exit code.

    `load` makes the engine of a preset or of named models; its keyword `quantization` replaces the one of the
    options. Raises SettingsError, and the errors of loading.
    """
    require_valid(options)
    if options.gpu_checks:
        from .gpu_command import run as run_gpu_checks

        return run_gpu_checks(options.gpu_checks)
    romsto = Romsto(options.romsto) if options.romsto else None
    if options.llama_cpp:
        require_llama_cpp(options.llama_cpp)  # before a pair is loaded
    if options.shapes:
        target_config, drafter_config = options.shapes
        with bigram_pair(
            target_config,
            drafter_config,
            alpha=options.alpha,
            device=options.device,
            quantization=options.quantization,
        ) as engine:
            return _measure(engine, options, romsto)
    if options.formats is not None:
        report = formats(lambda quantization: load(quantization=quantization), Path(options.formats))
        _print(dataclasses.asdict(report), formats_lines(report), options.json)
        return 0
    engine = load()
    if options.drafter_noise:
        engine = with_noisy_drafter(engine, options.drafter_noise)
    return _measure(engine, options, romsto)


def bench(engine: Engine, options: BenchOptions, romsto: Romsto | None = None) -> BenchReport:
    """Measure every lane at every temperature."""
    pair = engine.pair
    prompts = _prompts(engine, options)
    if pair.target.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(pair.target.device)
    llama_cpp = LlamaCpp(options.llama_cpp, pair) if options.llama_cpp else None
    tables, cache_bytes = [], 0
    for temperature in options.temperature:
        lanes = _lanes(engine, options, temperature, romsto, llama_cpp)
        tables.append(_table(pair, lanes, prompts, options.repetitions, temperature))
        cache_bytes = max(cache_bytes, *(sample.cache_bytes for lane in lanes for sample in lane.samples))
    return BenchReport(
        command="python -m specdec_core " + shlex.join(sys.argv[1:]),
        date=datetime.date.today().isoformat(),
        machine=machine_name(pair.target.device),
        versions=versions(pair.target.threads),
        pair=engine.info,
        text=_text_name(options),
        max_new_tokens=options.max_new_tokens,
        repetitions=options.repetitions,
        tables=tables,
        memory=memory_in_use(pair, cache_bytes),
        roofline=roofline(pair, tables[0]),
    )


def _measure(engine: Engine, options: BenchOptions, romsto: Romsto | None) -> int:
    passed = True
    if options.exactness is not None:
        report = exactness(engine, options.exactness, options.max_new_tokens)
        lines = exactness_lines(report)
        passed = report.unexcused == 0
    elif options.distribution is not None:
        report = distribution(engine, options.distribution)
        lines = distribution_lines(report)
        passed = report.follows
    elif options.history is not None:
        report = history(engine, options.history or HISTORIES, options.repetitions)
        lines = history_lines(report)
    else:
        report = bench(engine, options, romsto)
        lines = report_lines(report)
        if options.chart:
            title = f"{report.pair.title}: speedup over the baseline"
            Path(options.chart).write_text(chart_svg(report.tables, title), encoding="utf-8")
    _print(dataclasses.asdict(report), lines, options.json)
    return 0 if passed else 1


def _print(report: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    print(to_json(report) if as_json else "\n".join(lines))


def _prompts(engine: Engine, options: BenchOptions) -> Sequence[Prompt]:
    if not options.shapes:
        return prompt_set(options.text, options.preset, has_template(engine))
    prompts = bigram_prompts(engine.pair)
    if options.text == "repeat":
        return [retold(engine, prompt, options.max_new_tokens) for prompt in prompts]
    return prompts


def _text_name(options: BenchOptions) -> str:
    if options.shapes:
        return "retold bigram" if options.text == "repeat" else "bigram"
    return options.text


def _lanes(
    engine: Engine,
    options: BenchOptions,
    temperature: float,
    romsto: Romsto | None,
    llama_cpp: LlamaCpp | None,
) -> list[Lane]:
    pair = engine.pair
    settings = Settings(
        max_new_tokens=options.max_new_tokens,
        temperature=temperature,
        gamma=0,
        verification=options.verification,
    )

    def ours(name: str, gamma: int | Literal["auto"], drafting: Drafting = "model") -> Lane:
        lane_settings = dataclasses.replace(settings, gamma=gamma, drafting=drafting)
        return Lane(name, our_answer(engine, lane_settings), gamma, drafting)

    lanes = [ours(BASELINE, 0)]
    if pair.drafter is not None:
        lanes += [
            ours("speculative, auto" if gamma == "auto" else f"speculative, gamma {gamma}", gamma)
            for gamma in dict.fromkeys(options.gamma)
            if gamma != 0
        ]
    if not options.no_ngram:
        lanes.append(ours("n-gram, auto", "auto", "ngram"))
        if pair.drafter is not None:
            lanes.append(ours("both, auto", "auto", "both"))
    peer_gammas = options.peer_gamma if pair.drafter is not None else []
    if options.peers:
        lanes.append(Lane(PEER, peer_answer(pair, settings, None), drafting=None))
        lanes += [
            Lane(f"{ASSISTED}, gamma {gamma}", peer_answer(pair, settings, gamma), gamma, None)
            for gamma in peer_gammas
        ]
    if romsto is not None:
        lanes.append(Lane("Romsto autoregressive", romsto.answer(pair, settings, None), drafting=None))
        lanes += [
            Lane(f"Romsto speculative, gamma {gamma}", romsto.answer(pair, settings, gamma), gamma, None)
            for gamma in peer_gammas
        ]
    if llama_cpp is not None:
        lanes.append(Lane(LLAMA_CPP, llama_cpp_answer(llama_cpp, pair, settings), drafting=None))
    return lanes


def _table(
    pair: LoadedPair, lanes: list[Lane], prompts: Sequence[Prompt], repetitions: int, temperature: float
) -> Table:
    steps = _InterleavedSteps(pair, lanes)
    measure(lanes, prompts, repetitions, steps.measure)
    return table(temperature, steps.timer.context, lanes, steps.timer.times)


@dataclass
class _InterleavedSteps:
    """Bare forwards, timed between the repetitions of the lanes, so that both meet the same machine load."""

    pair: LoadedPair
    lanes: Sequence[Lane]

    @cached_property
    def timer(self) -> StepTimer:
        """A timer for the context in the middle of an answer, whose length the first repetition shows."""
        gammas = [lane.gamma for lane in self.lanes if lane.is_ours and lane.gamma != "auto"]
        longest = max([*gammas, _MOST_ROWS])
        context = _middle(self.lanes, self.pair.shared_context_length - longest - 1)
        return StepTimer(self.pair, context, range(1, longest + 2))

    def measure(self) -> None:
        """Add a few repetitions."""
        self.timer.measure(_STEP_REPETITIONS)


def _middle(lanes: Sequence[Lane], most: int) -> int:
    """Mean number of tokens of context in the middle of the answers so far, at most `most`."""
    stats = [sample.stats for lane in lanes for sample in lane.samples if sample.stats is not None]
    middle = sum(s.prompt_tokens + s.new_tokens / 2 for s in stats) / len(stats)
    return max(1, min(round(middle), most))
