"""The command line: presets, check, generate, chat, bench.

With --json one JSON object goes to stdout and nothing else; errors go to stderr. Exit codes: 0 done (check:
compatible), 2 wrong arguments or a pair that could not be checked, 3 an incompatible pair, 1 anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence

from .errors import IncompatiblePairError, PairUncheckableError, SpecDecError
from .settings import MAX_GAMMA, Drafting, Settings, Verification


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    _quieten_transformers()
    try:
        return arguments.run(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m specdec_core", description="Speculative decoding that shows its drafts."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    presets = commands.add_parser("presets", help="list the presets")
    presets.add_argument("--json", action="store_true")
    presets.set_defaults(run=_presets)

    check = commands.add_parser("check", help="may these two models be paired? reads no weights")
    check.add_argument("target", help="Hub id or folder")
    check.add_argument("drafter", help="Hub id or folder")
    check.add_argument("--revision", help="the target's branch, tag or commit on the Hub")
    check.add_argument("--drafter-revision", metavar="REVISION", help="the drafter's")
    check.add_argument("--vocab-padding", choices=["refuse", "trim"], default="refuse")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)

    generate = commands.add_parser("generate", help="answer one prompt or message")
    what = generate.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="raw text to continue")
    what.add_argument("--message", help="a message to answer, through the chat template")
    _add_pair_arguments(generate)
    _add_settings_arguments(generate)
    generate.add_argument("--json", action="store_true")
    generate.set_defaults(run=_generate)

    chat = commands.add_parser("chat", help="a conversation in the terminal")
    _add_pair_arguments(chat)
    _add_settings_arguments(chat)
    chat.set_defaults(run=_chat)

    bench = commands.add_parser("bench", help="measure baseline, speculative decoding and the peers")
    _add_pair_arguments(bench)
    _add_bench_arguments(bench)
    bench.set_defaults(run=_bench)
    return parser


def _add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the pair")
    group.add_argument("--preset", help="a preset's name (see presets)")
    group.add_argument("--target", help="Hub id or folder, in place of a preset")
    group.add_argument("--drafter", help="Hub id or folder; without it the target decodes alone")
    group.add_argument("--revision", help="the target's branch, tag or commit on the Hub")
    group.add_argument("--drafter-revision", metavar="REVISION", help="the drafter's")
    group.add_argument(
        "--device",
        help="cpu, cuda, cuda:N, or auto, which splits a target that is too large over all GPUs, memory and "
        "disk (default: cuda where there is one)",
    )
    group.add_argument(
        "--max-memory",
        type=_device_and_size,
        action="append",
        metavar="DEVICE=SIZE",
        help="the most that --device auto may take, as in cuda:0=20GiB; repeatable, others are not used",
    )
    quantizations = ["none", "nf4", "int8"]
    group.add_argument("--quantization", choices=quantizations, help="for both models")
    group.add_argument("--drafter-quantization", choices=quantizations, help="for the drafter alone")
    group.add_argument("--vocab-padding", choices=["refuse", "trim"])


def _add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Options default to None, which stands for the preset's own setting."""
    group = parser.add_argument_group("settings")
    group.add_argument("--gamma", type=_gamma, help=f"drafts a round, 0 to {MAX_GAMMA} or auto; 0 is plain")
    group.add_argument("--drafting", choices=Drafting.__args__)
    group.add_argument("--verification", choices=Verification.__args__)
    group.add_argument("--temperature", type=float, help="0 is greedy")
    group.add_argument("--top-p", type=float)
    group.add_argument("--top-k", type=int)
    group.add_argument("--min-p", type=float)
    group.add_argument("--seed", type=int)
    group.add_argument("--max-new-tokens", type=int)
    group.add_argument("--stop", action="append", metavar="S", help="end before this text; repeatable")


def _add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured")
    group.add_argument(
        "--gamma",
        type=_gamma,
        nargs="+",
        metavar="G",
        default=[*range(1, 9), "auto"],
        help="draft lengths, auto among them (default 1 to 8 and auto)",
    )
    group.add_argument("--no-ngram", action="store_true", help="leave n-gram drafting out")
    group.add_argument("--peers", action="store_true", help="transformers' generate in the same run")
    group.add_argument("--romsto", metavar="PATH", help="a checkout of romsto/Speculative-Decoding as well")
    group.add_argument(
        "--peer-gamma", type=int, nargs="+", metavar="G", default=[4], help="the peers' gammas (default 4)"
    )
    group.add_argument("--temperature", type=float, nargs="+", metavar="T", default=[0.0, 0.8])
    group.add_argument("--verification", choices=Verification.__args__, default="rejection")
    group.add_argument(
        "--text",
        default="stories",
        metavar="SET",
        help="stories, random, repeat (passages said twice; with --shapes an answer given before) or a file, "
        "one prompt a line",
    )
    group.add_argument("--max-new-tokens", type=int, default=150, metavar="N")
    group.add_argument(
        "--drafter-noise",
        type=float,
        default=0.0,
        metavar="X",
        help="noise on the drafter's weights, to see drafts fail",
    )
    group.add_argument("--repetitions", type=int, default=5, metavar="N", help="answers a lane (default 5)")
    group.add_argument("--chart", metavar="FILE.svg", help="draw measured and predicted speedup over gamma")
    group.add_argument("--json", action="store_true")
    shapes = parser.add_argument_group("a pair made up for its size")
    shapes.add_argument("--shapes", nargs=2, metavar="CONFIG", help="config.json of target and drafter")
    shapes.add_argument(
        "--alpha", type=float, default=0.8, help="the share of drafts to accept (default 0.8)"
    )
    other = parser.add_argument_group("in place of the lanes").add_mutually_exclusive_group()
    other.add_argument(
        "--exactness", type=int, metavar="PROMPTS", help="are speculative answers the baseline's?"
    )
    other.add_argument(
        "--history",
        type=int,
        nargs="*",
        metavar="TOKENS",
        help="time to first token of a second turn (default 100 400 1600)",
    )
    other.add_argument("--gpu-checks", action="store_true", help="what only a GPU can show; needs no pair")


def _gamma(text: str) -> int | str:
    if text != "auto" and not text.lstrip("-").isdigit():
        raise argparse.ArgumentTypeError(f"a whole number from 0 to {MAX_GAMMA} or auto, not {text!r}")
    return text if text == "auto" else int(text)


def _device_and_size(text: str) -> tuple[str, str]:
    device, separator, size = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"a device and a size, as in cpu=8GiB, not {text!r}")
    return device, size


def _load(arguments: argparse.Namespace):
    from .engine import Engine

    return Engine.load(
        arguments.preset,
        target=arguments.target,
        drafter=arguments.drafter,
        revision=arguments.revision,
        drafter_revision=arguments.drafter_revision,
        device=arguments.device,
        max_memory=dict(arguments.max_memory) if arguments.max_memory else None,
        quantization=arguments.quantization,
        drafter_quantization=arguments.drafter_quantization,
        vocab_padding=arguments.vocab_padding,
        on_progress=_show_progress,
    )


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
    from .presets import load_presets

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
    from .compatibility import check_pair

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
    from .terminal_chat import figures

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
    from .terminal_chat import chat

    _settings(arguments, Settings())
    engine = _load(arguments)
    return chat(engine, _settings(arguments, engine.default_settings))


def _bench(arguments: argparse.Namespace) -> int:
    from .bench.command import run

    return run(arguments, _load)


if __name__ == "__main__":
    sys.exit(main())
