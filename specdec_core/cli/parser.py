"""The argument parser of every command. Imports none of their code."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from typing import get_args

from .. import __version__
from ..errors import quote
from ..settings import (
    QUANTIZATIONS,
    SETTINGS,
    Choice,
    Number,
    Setting,
    Texts,
    TokenIds,
    TokenNumbers,
    Verification,
    VocabPadding,
    WholeNumber,
)
from .streams import report

COMMANDS_GROUP = "specdec.commands"
"""Entry-point group of commands of other packages. Each entry is a function that adds a parser to the
subparsers it is given and sets the parser's default `run` to the function to call."""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of `specdec`. Its namespace has `command`, and `run` for other packages' commands."""
    parser = argparse.ArgumentParser(
        prog="specdec", description="Speculative decoding that shows its drafts."
    )
    parser.add_argument("--version", action="version", version=f"specdec-chat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    presets = commands.add_parser("presets", help="list the presets")
    presets.add_argument("--json", action="store_true")

    check = commands.add_parser("check", help="may these two models be paired? reads no weights")
    check.add_argument("target", help="Hub id or folder")
    check.add_argument("drafter", help="Hub id or folder")
    check.add_argument("--revision", help="the target's branch, tag or commit on the Hub")
    check.add_argument("--drafter-revision", metavar="REVISION", help="the drafter's")
    check.add_argument("--vocab-padding", choices=get_args(VocabPadding), default="refuse")
    check.add_argument("--json", action="store_true")

    generate = commands.add_parser("generate", help="answer one prompt or message")
    what = generate.add_mutually_exclusive_group(required=True)
    what.add_argument("--prompt", help="raw text to continue")
    what.add_argument("--message", help="a message to answer, through the chat template")
    _add_pair_arguments(generate)
    _add_settings_arguments(generate)
    generate.add_argument("--json", action="store_true")

    chat = commands.add_parser("chat", help="a conversation in the terminal")
    _add_pair_arguments(chat)
    _add_settings_arguments(chat)

    bench = commands.add_parser("bench", help="measure baseline, speculative decoding and the peers")
    _add_pair_arguments(bench)
    _add_bench_arguments(bench)

    cache = commands.add_parser("cache", help="what is kept of quantized weights for the next load")
    cache.add_argument("--clear", action="store_true", help="delete it")
    cache.add_argument("--json", action="store_true")

    families = commands.add_parser(
        "families", help="which model types transformers has, and how each is served; takes minutes"
    )
    families.add_argument("types", nargs="*", metavar="TYPE", help="model types, as in config.json (all)")

    for entry_point in entry_points(group=COMMANDS_GROUP):
        try:
            entry_point.load()(commands)
        except Exception as error:  # code of another package may raise anything
            report(f"warning: the command {entry_point.name} of another package is left out: {quote(error)}")
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
    group.add_argument("--quantization", choices=QUANTIZATIONS, help="for both models")
    group.add_argument("--drafter-quantization", choices=QUANTIZATIONS, help="for the drafter alone")
    group.add_argument("--vocab-padding", choices=get_args(VocabPadding))


def _add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an option for each setting. The default None stands for the preset's value."""
    group = parser.add_argument_group("settings")
    for setting in SETTINGS.values():
        flag = f"--{setting.name.replace('_', '-')}"
        match setting.values:
            case Choice(words):
                group.add_argument(flag, choices=words, help=setting.help)
            case Texts():
                group.add_argument(flag, action="append", metavar="TEXT", help=f"{setting.help} Repeatable.")
            case TokenIds():
                help = f"{setting.help} Repeatable."
                group.add_argument(flag, type=int, action="append", metavar="ID", help=help)
            case TokenNumbers():
                help = f"{setting.help} Repeatable."
                group.add_argument(flag, type=_id_and_number, action="append", metavar="ID=X", help=help)
            case WholeNumber(word=str(word)):
                group.add_argument(flag, type=_converter(setting), metavar=f"N|{word}", help=setting.help)
            case WholeNumber():
                group.add_argument(flag, type=_converter(setting), metavar="N", help=setting.help)
            case Number():
                group.add_argument(flag, type=_converter(setting), metavar="X", help=setting.help)


def _add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what is measured")
    _add_lane_arguments(group)
    group.add_argument(
        "--text",
        default="stories",
        metavar="SET",
        help="stories, random, repeat (passages said twice; with --shapes an answer given before) or a file, "
        "one prompt a line",
    )
    group.add_argument(
        "--max-new-tokens", type=_converter(SETTINGS["max_new_tokens"]), default=150, metavar="N"
    )
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
        "--distribution", type=int, metavar="ANSWERS", help="do sampled answers follow the target?"
    )
    other.add_argument(
        "--history",
        type=int,
        nargs="*",
        metavar="TOKENS",
        help="time to first token of a second turn (default 100 400 1600)",
    )
    other.add_argument(
        "--formats", metavar="TEXT_FILE", help="loss on a text, size and times of each format on a CPU"
    )
    other.add_argument("--gpu-checks", action="store_true", help="what only a GPU can show; needs no pair")
    checks = parser.add_argument_group("with --gpu-checks")
    checks.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="time for all steps, the most important first; the rest is skipped (default 560)",
    )
    checks.add_argument("--only", nargs="+", metavar="STEP", help="run these steps alone")
    checks.add_argument(
        "--output", metavar="FOLDER", help="append findings to results.jsonl and logs to all.log there"
    )
    checks.add_argument(
        "--smoke", action="store_true", help="rehearse on the CPU, with tiny shapes; skips what needs CUDA"
    )


def _add_lane_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--gamma",
        type=_converter(SETTINGS["gamma"]),
        nargs="+",
        metavar="G",
        default=[*range(1, 9), "auto"],
        help="draft lengths, auto among them (default 1 to 8 and auto)",
    )
    group.add_argument("--no-ngram", action="store_true", help="leave n-gram drafting out")
    group.add_argument("--peers", action="store_true", help="transformers' generate in the same run")
    group.add_argument("--romsto", metavar="PATH", help="a checkout of romsto/Speculative-Decoding as well")
    group.add_argument(
        "--llama-cpp", metavar="GGUF", help="llama.cpp on the target's GGUF as well (pip install xllamacpp)"
    )
    group.add_argument(
        "--peer-gamma", type=int, nargs="+", metavar="G", default=[4], help="the peers' gammas (default 4)"
    )
    group.add_argument(
        "--temperature", type=_converter(SETTINGS["temperature"]), nargs="+", metavar="T", default=[0.0, 0.8]
    )
    group.add_argument("--verification", choices=get_args(Verification), default="rejection")


def _converter(setting: Setting) -> Callable[[str], object]:
    """Return the function from an option's text to a value of the setting's type."""
    match setting.values:
        case WholeNumber(word=str()) as values:
            return partial(_number_or_word, values)
        case WholeNumber():
            return int
        case Number():
            return float
        case _:
            return str


def _number_or_word(values: WholeNumber, text: str) -> int | str:
    if text == values.word:
        return text
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"a whole number from {values.low} to {values.high} or {values.word}, not {text!r}"
        ) from error


def _id_and_number(text: str) -> tuple[int, float]:
    token_id, separator, number = text.partition("=")
    try:
        if separator:
            return int(token_id), float(number)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"a token's id and a number, as in 15=-2.5, not {text!r}")


def _device_and_size(text: str) -> tuple[str, str]:
    device, separator, size = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"a device and a size, as in cpu=8GiB, not {text!r}")
    return device, size
