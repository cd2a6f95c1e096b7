"""The commands and their exit codes.

0: done (`check`: compatible). 1: an error while loading or answering. 2: wrong arguments, or a pair that
could not be checked. 3: an incompatible pair. With --json one JSON object goes to stdout and nothing else;
errors go to stderr.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence

from ..errors import IncompatiblePairError, PairUncheckableError, SpecDecError
from ..settings import Settings
from .parser import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    command = getattr(arguments, "run", None) or _COMMANDS[arguments.command]
    _quieten_transformers()
    try:
        return command(arguments)
    except IncompatiblePairError as error:
        print(error, file=sys.stderr)
        return 3
    except (PairUncheckableError, ValueError) as error:
        if not isinstance(error, SpecDecError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SpecDecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _quieten_transformers() -> None:
    """Progress bars and advice of the libraries below would mix with what we say."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _load(arguments: argparse.Namespace):
    from ..engine import Engine
    from ..loading.plan import LoadOptions

    options = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(LoadOptions)}
    if options["max_memory"] is not None:
        options["max_memory"] = dict(options["max_memory"])
    return Engine.load(**options, on_progress=_show_progress)


def _show_progress(message: str, fraction: float | None) -> None:
    """One line that is rewritten, and gone in the end; nothing where no terminal shows it."""
    if sys.stderr.isatty():
        line = message[: shutil.get_terminal_size().columns - 1] if fraction != 1.0 else ""
        print(f"\x1b[K{line}", end="\r", file=sys.stderr, flush=True)


def _settings(arguments: argparse.Namespace, defaults: Settings) -> Settings:
    given = {f.name: getattr(arguments, f.name) for f in dataclasses.fields(Settings)}
    verification = given["verification"] or defaults.verification
    if given["seed"] is not None and given["gamma"] is None and verification == "rejection":
        # Whoever gives a seed wants an answer that repeats, and under "auto" timing decides the rounds.
        given["gamma"] = Settings().gamma if defaults.gamma == "auto" else None
    return dataclasses.replace(defaults, **{name: v for name, v in given.items() if v is not None})


def _presets(arguments: argparse.Namespace) -> int:
    from ..presets import load_presets

    presets, broken = load_presets()
    if arguments.json:
        print(json.dumps({name: preset.to_dict() for name, preset in presets.items()}))
    else:
        width = max(map(len, presets), default=0)
        for name, preset in presets.items():
            print(f"{name:<{width}}  {preset.title}{' (gated)' if preset.gated else ''}")
    for error in broken.values():
        print(f"error: {error}", file=sys.stderr)
    return 2 if broken else 0


def _check(arguments: argparse.Namespace) -> int:
    from ..gate.check import check_pair

    report = check_pair(
        arguments.target,
        arguments.drafter,
        target_revision=arguments.revision,
        drafter_revision=arguments.drafter_revision,
        vocab_padding=arguments.vocab_padding,
    )
    print(json.dumps(report.to_dict()) if arguments.json else report)
    if report.ok:
        return 0
    return 3 if any(check.status == "fail" for check in report.checks) else 2


def _generate(arguments: argparse.Namespace) -> int:
    from .chat import figures

    # A setting out of range is said before a model is loaded for it.
    _settings(arguments, Settings())
    engine = _load(arguments)
    settings = _settings(arguments, engine.default_settings)
    prompt = arguments.prompt
    if prompt is None:
        prompt = [{"role": "user", "content": arguments.message}]
    if arguments.json:
        result = engine.generate(prompt, settings)
        print(json.dumps(dataclasses.asdict(result)))
        return 0
    for rnd in engine.stream(prompt, settings):
        print(rnd.text, end="", flush=True)
    print()
    print(figures(rnd.stats), file=sys.stderr)
    return 0


def _chat(arguments: argparse.Namespace) -> int:
    from .chat import chat

    _settings(arguments, Settings())
    engine = _load(arguments)
    return chat(engine, _settings(arguments, engine.default_settings))


def _bench(arguments: argparse.Namespace) -> int:
    from ..bench.command import run

    return run(arguments, _load)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "presets": _presets,
    "check": _check,
    "generate": _generate,
    "chat": _chat,
    "bench": _bench,
}
