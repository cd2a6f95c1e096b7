"""Trace files: an answer of the page as self-contained JSON, written and read.

They hold no ids of people and no paths of the machine. Files are validated before use; knows no components.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import PurePath
from typing import Any, get_args

import specdec_core as sd

FORMAT = "specdec-chat-trace"
"""Value of a file's field `format`."""
VERSION = 1
"""Value of a file's field `version`."""
MOST_BYTES = 50_000_000
"""Largest file to be read."""
MOST_TOKENS = 100_000
"""Most tokens of a trace to be read, emitted or not."""
_KINDS = get_args(sd.TokenKind)
_SOURCES = get_args(sd.DraftSource)
_COUNTS = ("index", "position", "gamma")
_FACTS = ("settings", "pair", "versions")
_TIMES = ("draft_s", "verify_s", "overhead_s")


class TraceFileError(sd.SpecDecError, ValueError):
    """A file that is not a trace; the message names the defect."""


@dataclass(frozen=True)
class Trace:
    """One answer, with its settings, its pair and the versions of the software as plain values."""

    prompt: str
    settings: Mapping[str, Any]
    pair: Mapping[str, Any]
    versions: Mapping[str, Any]
    rounds: list[sd.Round]

    @property
    def stats(self) -> sd.Stats | None:
        """The figures of the answer; None in a file without them."""
        return self.rounds[-1].stats

    @property
    def finish_reason(self) -> str | None:
        """The reason of the answer's end; None in a file of an unfinished answer."""
        return self.rounds[-1].finish_reason

    @property
    def end_id(self) -> int | None:
        """Id of the token that ended the answer; None if none did."""
        emitted = [token for rnd in self.rounds for token in rnd.emitted]
        ended = self.finish_reason == "eos" and emitted and not emitted[-1].text
        return emitted[-1].id if ended else None

    @property
    def label(self) -> str:
        """The answer in a line."""
        prompt = " ".join(self.prompt.split())
        beginning = prompt if len(prompt) <= 48 else prompt[:47] + "…"
        count = sum(len(rnd.emitted) for rnd in self.rounds)
        return f"{beginning} · {drafting_in_words(self.settings)} · {sd.counted(count, 'token')}"


def drafting_in_words(settings: Mapping[str, Any]) -> str:
    """Return the way of drafting, such as "n-gram, gamma 4"."""
    gamma = settings.get("gamma")
    if gamma == 0:
        return "plain decoding"
    drafts = {"ngram": "n-gram, ", "both": "n-gram and model, "}
    return f"{drafts.get(str(settings.get('drafting')), '')}gamma {gamma}"


def trace_of(prompt: str, settings: sd.Settings, info: sd.EngineInfo, rounds: list[sd.Round]) -> Trace:
    """Return the trace of an answer of `info`'s pair; its seed is the one in use, drawn or set."""
    values = asdict(settings)
    stats = rounds[-1].stats
    if stats is not None and stats.seed is not None:
        values["seed"] = stats.seed
    pair = {
        "title": info.title,
        "preset": info.preset,
        "target": _model_name(info.target),
        "drafter": _model_name(info.drafter),
        "device": info.device,
        "dtype": info.dtype,
        "target_quantization": info.target_quantization,
        "drafter_quantization": info.drafter_quantization,
        "runner": info.runner,
    }
    return Trace(prompt, values, pair, versions(), rounds)


def to_json(trace: Trace) -> str:
    """Return the trace as the text of a JSON file; `from_json` is its inverse."""
    stats = trace.stats
    data = {
        "format": FORMAT,
        "version": VERSION,
        "prompt": trace.prompt,
        "settings": dict(trace.settings),
        "pair": dict(trace.pair),
        "versions": dict(trace.versions),
        "finish_reason": trace.finish_reason,
        "stats": None if stats is None else asdict(stats),
        "rounds": [replace(rnd, stats=None).to_dict() for rnd in trace.rounds],
    }
    return sd.to_json(data, indent=1)


def from_json(data: bytes) -> Trace:
    """Return the trace in a file. Raises TraceFileError, naming the defect."""
    if len(data) > MOST_BYTES:
        raise TraceFileError(f"The file is larger than {MOST_BYTES // 1_000_000} MB, too large for a trace.")
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, or an int of 5,000 digits
        raise TraceFileError("The file is not JSON. Open a file that was saved here as a trace.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise TraceFileError(
            f'The file is JSON, but not a trace: its "format" is not "{FORMAT}". Open a file that was saved '
            "here as a trace."
        )
    if values.get("version") != VERSION:
        raise TraceFileError(
            f"The trace has version {_short(values.get('version'))}; this page reads version {VERSION}."
        )
    try:
        return _trace(values)
    except ValueError as error:
        raise TraceFileError(f"The trace is damaged: {error}") from error


def _trace(values: dict[str, Any]) -> Trace:
    rounds = values.get("rounds")
    if not isinstance(rounds, list) or not rounds:
        raise ValueError("rounds must be a list of at least one round.")
    read = [_round(at, rnd) for at, rnd in enumerate(rounds)]
    if sum(len(rnd.tokens) for rnd in read) > MOST_TOKENS:
        raise ValueError(f"it has more than {MOST_TOKENS:,} tokens.")
    if values.get("stats") is not None:
        # Round.from_dict checks the fields of stats.
        last = replace(read[-1], stats=None).to_dict() | {"stats": values["stats"]}
        read[-1] = sd.Round.from_dict(last)
        if read[-1].stats is not None:
            _check_stats(read[-1].stats)
    facts = {name: _flat(name, values.get(name, {}), nested=True) for name in _FACTS}
    prompt = values.get("prompt", "")
    if not isinstance(prompt, str):
        raise ValueError("prompt must be text.")
    return Trace(prompt, facts["settings"], facts["pair"], facts["versions"], read)


def _round(at: int, values: Any) -> sd.Round:
    if isinstance(values, dict) and not isinstance(values.get("tokens", []), list):
        raise ValueError(f"round {at}: tokens must be a list.")
    try:
        rnd = sd.Round.from_dict(values)
    except ValueError as error:
        raise ValueError(f"round {at}: {error}") from error
    for name in _COUNTS:
        if not _is_count(getattr(rnd, name)):
            raise ValueError(f"round {at}: {name} must be a whole number, not {_short(getattr(rnd, name))}.")
    for name in _TIMES:
        if not _is_number(getattr(rnd, name)):
            raise ValueError(f"round {at}: {name} must be seconds, not {_short(getattr(rnd, name))}.")
    if not all(isinstance(text, str) for text in (rnd.text, rnd.thought, rnd.gamma_reason)):
        raise ValueError(f"round {at}: text, thought and gamma_reason must be text.")
    if rnd.gamma_gain is not None and not _is_number(rnd.gamma_gain):
        raise ValueError(f"round {at}: gamma_gain must be a number, not {_short(rnd.gamma_gain)}.")
    if not isinstance(rnd.gamma_cut, bool):
        raise ValueError(f"round {at}: gamma_cut must be true or false, not {_short(rnd.gamma_cut)}.")
    if rnd.source is not None and rnd.source not in _SOURCES:
        raise ValueError(f"round {at}: source must be {' or '.join(_SOURCES)}, not {_short(rnd.source)}.")
    if rnd.finish_reason is not None and not isinstance(rnd.finish_reason, str):
        raise ValueError(f"round {at}: finish_reason must be text.")
    for token in rnd.tokens:
        _check_token(at, token)
    return rnd


def _check_token(at: int, token: sd.Token) -> None:
    if not isinstance(token.kind, str) or token.kind not in _KINDS:
        raise ValueError(f"round {at}: a token has kind {_short(token.kind)}; known are {', '.join(_KINDS)}.")
    if not isinstance(token.text, str) or not _is_count(token.id):
        raise ValueError(f"round {at}: a token must have text and a whole number as id.")
    if max(len(token.alternatives or []), len(token.drafter_alternatives or [])) > sd.MOST_ALTERNATIVES:
        raise ValueError(f"round {at}: a token has more than {sd.MOST_ALTERNATIVES} alternatives.")
    likeliest = [*(token.alternatives or []), *(token.drafter_alternatives or [])]
    for each in likeliest:
        if not isinstance(each.text, str) or not _is_count(each.id):
            raise ValueError(f"round {at}: an alternative must have text and a whole number as id.")
    for each in (token, *likeliest):
        for p in (each.target_prob, each.drafter_prob):
            if p is not None and not (_is_number(p) and p <= 1.000001):
                raise ValueError(f"round {at}: a probability must be from 0 to 1, not {_short(p)}.")


def _check_stats(stats: sd.Stats) -> None:
    for name, value in asdict(stats).items():
        numbers = value if name == "acceptance_by_position" else [value]
        if not isinstance(numbers, list):
            raise ValueError(f"stats: {name} must be a list.")
        if not all(number is None or _is_number(number) for number in numbers) and name != "seed":
            raise ValueError(f"stats: {name} must be a number, not {_short(value)}.")

    count, of = stats.thought_tokens, stats.new_tokens
    if not _is_count(count) or count > of:
        raise ValueError(f"stats: thought_tokens must be a whole number up to {of}, not {_short(count)}.")


def _flat(name: str, values: Any, nested: bool = False) -> dict[str, Any]:
    """A table of plain values, and of tables of them if `nested`, with long keys cut: the values are only
    displayed.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{name} must be an object.")
    for key, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}: {_short(key)} must be finite, not {value}.")
    plain = (str, int, float, bool, type(None), list)
    tables = {key: _flat(key, value) for key, value in values.items() if nested and isinstance(value, dict)}
    flat = {key: value for key, value in values.items() if isinstance(value, plain)}
    return {key[:100]: value for key, value in (flat | tables).items()}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _model_name(model: str | None) -> str | None:
    """A Hub id unchanged; the last part of a folder's path."""
    if model is None or re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model):
        return model
    return PurePath(model.replace("\\", "/")).name


@cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that influence an answer."""
    known = {"python": platform.python_version()}
    for package in ("torch", "transformers", "tokenizers", "gradio"):
        try:
            known[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return known


def file_name(trace: Trace, ending: str) -> str:
    """Return a file name for the trace, portable to every system."""
    words = re.sub(r"[^a-z0-9]+", "-", trace.prompt.lower()).strip("-")[:40].strip("-")
    return f"specdec-{words or 'trace'}.{ending}"
