"""The bench command: loads what is asked for, measures it, and prints tables or one JSON object."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import resource
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from ..engine import Engine
from ..errors import SettingsError
from ..loading.step_times import StepTimer
from ..pair import LoadedPair
from ..settings import Settings
from ..text.prompting import Prompt
from .chart import chart_svg
from .exactness import exactness, exactness_lines
from .figures import ASSISTED, BASELINE, PEER, Table, table
from .history import HISTORIES, history, history_lines
from .lanes import Lane, measure, our_answer
from .noise import with_noisy_drafter
from .peers import peer_answer
from .prompts import prompt_set, retold
from .report import BenchReport, Memory, lines
from .romsto import Romsto
from .roofline import roofline
from .shapes import bigram_pair, bigram_prompts


def run(arguments: Namespace, load: Callable[[Namespace], Engine]) -> int:
    """Measures what `arguments` ask for. `load` makes an engine of the arguments that name a pair."""
    if arguments.gpu_checks:
        return _run_gpu_checks(arguments)
    _require_sensible(arguments)
    romsto = Romsto(arguments.romsto) if arguments.romsto else None
    if arguments.shapes:
        with bigram_pair(
            *arguments.shapes,
            alpha=arguments.alpha,
            device=arguments.device,
            quantization=arguments.quantization,
        ) as engine:
            return _measure(engine, arguments, romsto)
    engine = load(arguments)
    if arguments.drafter_noise:
        engine = with_noisy_drafter(engine, arguments.drafter_noise)
    return _measure(engine, arguments, romsto)


def _measure(engine: Engine, arguments: Namespace, romsto: Romsto | None) -> int:
    if arguments.exactness:
        found = exactness(engine, arguments.exactness, arguments.max_new_tokens)
        return _print(found, arguments.json, exactness_lines(found))
    if arguments.history is not None:
        found = history(engine, arguments.history or HISTORIES, arguments.repetitions)
        return _print(found, arguments.json, history_lines(found))
    found = bench(engine, arguments, romsto)
    if arguments.chart:
        title = f"{found.pair.title}: speedup over the baseline"
        Path(arguments.chart).write_text(chart_svg(found.tables, title), encoding="utf-8")
    return _print(dataclasses.asdict(found), arguments.json, lines(found))


def bench(engine: Engine, arguments: Namespace, romsto: Romsto | None = None) -> BenchReport:
    """Every lane at every temperature."""
    pair = engine.pair
    if arguments.shapes:
        prompts = bigram_prompts(pair)
        if arguments.text == "repeat":
            prompts = [retold(engine, prompt, arguments.max_new_tokens) for prompt in prompts]
    else:
        prompts = prompt_set(arguments.text, arguments.preset, pair.tokenizer.chat_template is not None)
    if pair.target.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(pair.target.device)
    tables, cache_bytes = [], 0
    for temperature in arguments.temperature:
        lanes = _lanes(engine, arguments, temperature, romsto)
        tables.append(_table(pair, lanes, prompts, arguments.repetitions, temperature))
        cache_bytes = max(cache_bytes, *(sample.cache_bytes for lane in lanes for sample in lane.samples))
    return BenchReport(
        command="python -m specdec_core " + shlex.join(sys.argv[1:]),
        date=datetime.date.today().isoformat(),
        machine=machine(pair.target.device),
        versions=versions(),
        pair=engine.info,
        text=_text(arguments),
        max_new_tokens=arguments.max_new_tokens,
        repetitions=arguments.repetitions,
        tables=tables,
        memory=_memory(pair, cache_bytes),
        roofline=roofline(pair, tables[0]),
    )


def _text(arguments: Namespace) -> str:
    if arguments.shapes:
        return "retold bigram" if arguments.text == "repeat" else "bigram"
    return arguments.text


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": str(torch.get_num_threads()),
    }


def machine(device: torch.device) -> str:
    """The GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        listed = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in listed if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def _lanes(engine: Engine, arguments: Namespace, temperature: float, romsto: Romsto | None) -> list[Lane]:
    pair = engine.pair
    settings = Settings(
        max_new_tokens=arguments.max_new_tokens,
        temperature=temperature,
        gamma=0,
        verification=arguments.verification,
    )

    def ours(name: str, gamma, drafting="model") -> Lane:
        chosen = dataclasses.replace(settings, gamma=gamma, drafting=drafting)
        return Lane(name, our_answer(engine, chosen), gamma, drafting)

    lanes = [ours(BASELINE, 0)]
    if pair.drafter is not None:
        lanes += [
            ours("speculative, auto" if gamma == "auto" else f"speculative, gamma {gamma}", gamma)
            for gamma in dict.fromkeys(arguments.gamma)
            if gamma != 0
        ]
    if not arguments.no_ngram:
        lanes.append(ours("n-gram, auto", "auto", "ngram"))
    peer_gammas = arguments.peer_gamma if pair.drafter is not None else []
    if arguments.peers:
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
    return lanes


def _table(
    pair: LoadedPair, lanes: list[Lane], prompts: Sequence[Prompt], repetitions: int, temperature: float
) -> Table:
    """Bare forwards are timed between the repetitions of the lanes, so that both meet the same machine."""
    longest = max([lane.gamma for lane in lanes if lane.is_ours and lane.gamma != "auto"] + [8])
    timer: StepTimer | None = None

    def between() -> None:
        nonlocal timer
        if timer is None:
            timer = StepTimer(pair, _middle(lanes, pair.context_length - longest - 1), range(1, longest + 2))
        timer.measure(5)

    measure(lanes, prompts, repetitions, between)
    return table(temperature, timer.context, lanes, timer.times)


def _middle(lanes: Sequence[Lane], most: int) -> int:
    """Tokens of context in the middle of the answers measured so far."""
    stats = [sample.stats for lane in lanes for sample in lane.samples if sample.stats is not None]
    middle = sum(s.prompt_tokens + s.new_tokens / 2 for s in stats) / len(stats)
    return max(1, min(round(middle), most))


def _memory(pair: LoadedPair, cache_bytes: int) -> Memory:
    device = pair.target.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        # Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Memory(
        target_weights=pair.target.model.get_memory_footprint(),
        drafter_weights=pair.drafter.model.get_memory_footprint() if pair.drafter is not None else None,
        caches=cache_bytes,
        peak=peak,
    )


def _run_gpu_checks(arguments: Namespace) -> int:
    if not torch.cuda.is_available():
        print("error: --gpu-checks needs a CUDA device, and there is none here.", file=sys.stderr)
        return 2
    from .gpu_checks import gpu_check_lines, gpu_checks

    found = gpu_checks(torch.device(arguments.device or "cuda"))
    _print(dataclasses.asdict(found), arguments.json, gpu_check_lines(found))
    return 0 if all(check.status != "fail" for check in found.checks) else 1


def _require_sensible(arguments: Namespace) -> None:
    if arguments.repetitions < 1:
        raise SettingsError(f"--repetitions must be at least 1, not {arguments.repetitions}.")
    if arguments.shapes and (arguments.preset or arguments.target or arguments.drafter):
        raise SettingsError("--shapes makes its own pair; name neither a preset nor models beside it.")
    if arguments.shapes and arguments.drafter_noise:
        raise SettingsError("--drafter-noise is for loaded pairs; with --shapes choose a smaller --alpha.")
    if arguments.drafter_noise < 0:
        raise SettingsError(f"--drafter-noise must be at least 0, not {arguments.drafter_noise:g}.")
    if not 0 <= arguments.alpha <= 1:
        raise SettingsError(f"--alpha must be from 0 to 1, not {arguments.alpha:g}.")
    for gamma in [*arguments.gamma, *arguments.peer_gamma]:
        Settings(gamma=gamma)
    for temperature in arguments.temperature:
        Settings(temperature=temperature)
    Settings(max_new_tokens=arguments.max_new_tokens)
    if arguments.chart and not Path(arguments.chart).resolve().parent.is_dir():
        raise SettingsError(f"--chart: there is no folder {Path(arguments.chart).resolve().parent}.")


def _print(found: dict, as_json: bool, lines: Sequence[str]) -> int:
    print(json.dumps(found) if as_json else "\n".join(lines))
    return 0
