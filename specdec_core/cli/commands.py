"""The commands of `specdec` and their exit codes.

0: done (`check`: compatible). 1: an error while loading or answering, or answers that `bench --exactness` or
`--distribution` finds wrong. 2: wrong arguments, or a pair that could not be checked. 3: an incompatible
pair. 130: interrupted. 141: the reader of the output has gone. With --json one JSON object goes to stdout and
nothing else; errors go to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..cache_folder import cache_contents, clear_cache
from ..errors import IncompatiblePairError, PairUncheckableError, SettingsError, SpecDecError
from ..settings import SETTINGS, Settings, TokenNumbers
from ..strict_json import to_json
from ..units import counted
from .parser import make_parser
from .streams import CLOSED_PIPE, abandon_output, prepare_streams, report

if TYPE_CHECKING:
    from ..bench.options import GpuCheckOptions
    from ..engine import Engine
    from ..trace import Stats


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; None stands for sys.argv. Return the exit code. Wrong options raise SystemExit."""
    prepare_streams()
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # here, where a failure has a handler
    except BrokenPipeError:
        abandon_output()
        return CLOSED_PIPE
    except OSError as error:
        abandon_output()
        report(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        report("")
        return 130


def _run(argv: Sequence[str] | None) -> int:
    """Run a command line. Return the exit code, after errors that have a message for people."""
    arguments = make_parser().parse_args(argv)
    command = getattr(arguments, "run", None) or _COMMANDS[arguments.command]
    _quieten_transformers()
    try:
        return command(arguments)
    except IncompatiblePairError as error:
        report(error)
        return 3
    except SpecDecError as error:
        report(f"error: {error}")
        return 2 if isinstance(error, PairUncheckableError | ValueError) else 1
    except (RuntimeError, MemoryError) as error:
        from ..out_of_memory import out_of_memory

        if not out_of_memory(error):
            raise
        report("error: Memory ran out. Load a smaller pair, or free memory.")
        return 1


def _quieten_transformers() -> None:
    """Silence progress bars and warnings of the libraries below, which would mix with the output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _load(arguments: argparse.Namespace, **changed: Any) -> Engine:
    """Load the pair that the arguments name; `changed` replaces fields of LoadOptions."""
    from ..engine import Engine
    from ..loading.plan import LoadOptions

    options = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(LoadOptions)}
    options |= changed
    if options["max_memory"] is not None:
        options["max_memory"] = dict(options["max_memory"])
    engine = Engine.load(**options, on_progress=_show_progress)
    for note in engine.info.settings_notes:
        report(f"note: {note}")
    if (drafts_end := engine.info.drafter_context_length) is not None:
        report(
            f"note: drafts end after {drafts_end:,} tokens of a conversation, since the drafter's context is "
            f"shorter than the target's ({engine.info.context_length:,})."
        )
    return engine


def _report_template(engine: Engine) -> None:
    """Say what the chat template leaves out or refuses before a message is sent."""
    for note in engine.info.template_notes:
        report(f"note: {note}")


def _show_progress(message: str, fraction: float | None) -> None:
    """Rewrite a progress line on a terminal, and erase it at the end. Other outputs get nothing."""
    if sys.stderr.isatty():
        line = message[: shutil.get_terminal_size().columns - 1] if fraction != 1.0 else ""
        print(f"\x1b[K{line}", end="\r", file=sys.stderr, flush=True)


def _settings(arguments: argparse.Namespace, defaults: Settings) -> Settings:
    values = {name: getattr(arguments, name) for name in SETTINGS}
    for name, setting in SETTINGS.items():
        if isinstance(setting.values, TokenNumbers) and values[name] is not None:
            values[name] = dict(values[name])
    verification = values["verification"] or defaults.verification
    if values["seed"] is not None and values["gamma"] is None and verification == "rejection":
        # A seed asks for a repeatable answer, and under "auto" timing decides the rounds.
        values["gamma"] = Settings().gamma if defaults.gamma == "auto" else None
    return dataclasses.replace(defaults, **{name: v for name, v in values.items() if v is not None})


def _presets(arguments: argparse.Namespace) -> int:
    from ..presets import load_presets

    presets, broken = load_presets()
    if arguments.json:
        print(to_json({name: preset.to_dict() for name, preset in presets.items()}))
    else:
        width = max(map(len, presets), default=0)
        for name, preset in presets.items():
            print(f"{name:<{width}}  {preset.title}{' (gated)' if preset.gated else ''}")
    for error in broken.values():
        report(f"error: {error}")
    return 2 if broken else 0


def _check(arguments: argparse.Namespace) -> int:
    from ..gate.check import check_pair

    verdict = check_pair(
        arguments.target,
        arguments.drafter,
        target_revision=arguments.revision,
        drafter_revision=arguments.drafter_revision,
        vocab_padding=arguments.vocab_padding,
    )
    print(to_json(verdict.to_dict()) if arguments.json else verdict)
    if verdict.ok:
        return 0
    return 3 if any(check.status == "fail" for check in verdict.checks) else 2


def _generate(arguments: argparse.Namespace) -> int:
    from .chat import figures

    # A setting out of range is an error before any model is loaded.
    _settings(arguments, Settings())
    engine = _load(arguments)
    settings = _settings(arguments, engine.default_settings)
    prompt = arguments.prompt
    if prompt is None:
        _report_template(engine)
        prompt = [{"role": "user", "content": arguments.message}]
    if arguments.json:
        result = engine.generate(prompt, settings)
        print(to_json(dataclasses.asdict(result)))
        return 0
    stats: Stats | None = None
    started = False
    try:
        for rnd in engine.stream(prompt, settings):
            started, stats = True, rnd.stats
            if rnd.thought or rnd.text:
                _show_progress("Thinking…", 1.0 if rnd.text else None)
            print(rnd.text, end="", flush=True)
    finally:
        if started:
            print(flush=True)  # an error that follows gets a line of its own
    if stats is not None:
        print(figures(stats), file=sys.stderr)
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    from .chat import chat

    _settings(arguments, Settings())
    engine = _load(arguments)
    _report_template(engine)
    return chat(engine, _settings(arguments, engine.default_settings))


def _bench(arguments: argparse.Namespace) -> int:
    from ..bench.command import run
    from ..bench.options import BenchOptions

    values = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(BenchOptions)}
    values["gpu_checks"] = _gpu_check_options(arguments)
    return run(BenchOptions(**values), lambda **changed: _load(arguments, **changed))


def _gpu_check_options(arguments: argparse.Namespace) -> GpuCheckOptions | None:
    """The options of --gpu-checks; None without it. Raises SettingsError for one of them without it."""
    from ..bench.options import GPU_BUDGET_S, GpuCheckOptions

    budget, only = arguments.budget, arguments.only
    if not arguments.gpu_checks:
        if budget is not None or only or arguments.output or arguments.smoke:
            raise SettingsError("--budget, --only, --output and --smoke are for --gpu-checks.")
        return None
    return GpuCheckOptions(
        budget=GPU_BUDGET_S if budget is None else budget,
        only=only or (),
        output=arguments.output,
        smoke=arguments.smoke,
        device=arguments.device,
        json=arguments.json,
    )


def _cache(arguments: argparse.Namespace) -> int:
    contents = clear_cache() if arguments.clear else cache_contents()
    if arguments.json:
        print(to_json(dataclasses.asdict(contents) | {"cleared": arguments.clear}))
    else:
        size = f"{counted(contents.files, 'file')} of {contents.size_bytes / 1e6:,.0f} MB"
        print(f"{contents.folder}: {size}{' deleted' if arguments.clear else ''}")
    return 0


def _families(arguments: argparse.Namespace) -> int:
    from ..bench.families import run

    return run(arguments.types)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "presets": _presets,
    "check": _check,
    "generate": _generate,
    "chat": _chat,
    "bench": _bench,
    "cache": _cache,
    "families": _families,
}
