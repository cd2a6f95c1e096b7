"""Rules by which a serialized tokenizer cuts text into tokens, and differences between two of them.

Compares parsed tokenizer.json files. Knows nothing of models, files or verdicts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from ..trace import first_difference

_EXCERPT_LENGTH = 120

_MODEL_OPTIONS = {
    "byte_fallback": "byte fallback",
    "ignore_merges": "ignore_merges",
    "unk_token": "unknown token",
    "unk_id": "unknown token",
    "fuse_unk": "fusing of unknown tokens",
    "continuing_subword_prefix": "continuing-subword prefix",
    "end_of_word_suffix": "end-of-word suffix",
    "max_input_chars_per_word": "longest word",
    "dropout": "merge dropout",
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


@dataclass(frozen=True, slots=True)
class CuttingDifference:
    """One component that differs. `harmless`: only the target's is ever used."""

    component: str
    target: str
    drafter: str
    harmless: bool = False


def serialized(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the loaded tokenizer as JSON; None for one written in Python."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend.to_str() if backend is not None else None


def cutting_differences(target: dict[str, Any], drafter: dict[str, Any]) -> list[CuttingDifference]:
    """Return the rules that differ between two parsed `serialized` tokenizers, vocabularies left out."""
    return [
        *_model_differences(target["model"], drafter["model"]),
        *_pipeline_difference("normalizer", target["normalizer"], drafter["normalizer"]),
        *_pipeline_difference("pre-tokenizer", target["pre_tokenizer"], drafter["pre_tokenizer"]),
        *_added_token_differences(target["added_tokens"], drafter["added_tokens"]),
        # These add special tokens around the ids and turn ids into text. Only the target's are used.
        *_pipeline_difference(
            "post-processor", target["post_processor"], drafter["post_processor"], harmless=True
        ),
        *_pipeline_difference(
            "decoder", _used_part(target["decoder"]), _used_part(drafter["decoder"]), harmless=True
        ),
    ]


def describe_cutting(parsed: dict[str, Any]) -> str:
    """Return a line for display: kind of model, number of merges, normalizer and pre-tokenizer."""
    model = parsed["model"]
    parts = [model["type"]]
    if "merges" in model:
        parts.append(f"{len(model['merges']):,} merges")
    if model.get("byte_fallback"):
        parts.append("byte fallback")
    for name, key in (("normalizer", "normalizer"), ("pre-tokenizer", "pre_tokenizer")):
        steps = " + ".join(step["type"] for step in _steps(parsed[key]))
        parts.append(f"{name} {steps}" if steps else f"no {name}")
    return ", ".join(parts)


def quoted(token: str | None) -> str:
    """Return a token for display: quoted, control characters escaped, long text truncated."""
    if token is None:
        return "no token"
    return repr(token) if len(token) <= _EXCERPT_LENGTH else repr(token[:_EXCERPT_LENGTH]) + "…"


def _model_differences(target: dict[str, Any], drafter: dict[str, Any]) -> Iterator[CuttingDifference]:
    if target["type"] != drafter["type"]:
        yield CuttingDifference("model type", target["type"], drafter["type"])
        return
    for option in sorted((target.keys() | drafter.keys()) - {"type", "vocab", "merges"}):
        target_value, drafter_value = target.get(option), drafter.get(option)
        if _effective(target_value) != _effective(drafter_value):
            yield CuttingDifference(
                _MODEL_OPTIONS.get(option, option), _as_json(target_value), _as_json(drafter_value)
            )
    yield from _merge_difference(target.get("merges", []), drafter.get("merges", []))
    if isinstance(target["vocab"], list):
        yield from _score_difference(target["vocab"], drafter["vocab"])


def _effective(value: Any) -> Any:
    """The value, or None for one without effect: a switch that is off, an empty affix, a dropout of 0.0. The
    id 0 has an effect.
    """
    does_nothing = value is False or value == "" or (isinstance(value, float) and value == 0.0)
    return None if does_nothing else value


def _merge_difference(target: list[Any], drafter: list[Any]) -> Iterator[CuttingDifference]:
    def merge(merges: list[Any], at: int) -> str:
        return " + ".join(map(quoted, merges[at])) if at < len(merges) else "none"

    at = first_difference(target, drafter)
    if at is not None:
        yield CuttingDifference(f"merge {at + 1:,}", merge(target, at), merge(drafter, at))


def _score_difference(target: list[Any], drafter: list[Any]) -> Iterator[CuttingDifference]:
    """The first difference between the vocabularies [piece, score] of Unigram models."""

    def entry(vocabulary: list[Any], at: int) -> str:
        return _as_json(vocabulary[at]) if at < len(vocabulary) else "none"

    at = first_difference(target, drafter)
    if at is not None:
        yield CuttingDifference(f"score of piece {at}", entry(target, at), entry(drafter, at))


def _pipeline_difference(
    component: str, target: dict[str, Any] | None, drafter: dict[str, Any] | None, harmless: bool = False
) -> Iterator[CuttingDifference]:
    target_steps, drafter_steps = _steps(target), _steps(drafter)
    if target_steps != drafter_steps:
        texts = _excerpts(_steps_as_text(target_steps), _steps_as_text(drafter_steps))
        yield CuttingDifference(component, texts[0], texts[1], harmless)


def _added_token_differences(
    target: list[dict[str, Any]], drafter: list[dict[str, Any]]
) -> Iterator[CuttingDifference]:
    """The first added token that only one side has, or that has other flags."""
    drafter_tokens = {token["content"]: token for token in drafter}
    target_tokens = {token["content"]: token for token in target}
    for content in [*target_tokens, *(c for c in drafter_tokens if c not in target_tokens)]:
        target_flags = _flags(target_tokens.get(content))
        drafter_flags = _flags(drafter_tokens.get(content))
        if target_flags != drafter_flags:
            yield CuttingDifference(f"added token {quoted(content)}", target_flags, drafter_flags)
            return


def _flags(token: dict[str, Any] | None) -> str:
    if token is None:
        return "not an added token"
    return ", ".join(flag for flag in _FLAGS if token[flag]) or "no flags"


def _steps(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A component as a flat list of steps, without the option that only concerns offsets."""
    if component is None:
        return []
    for key in ("normalizers", "pretokenizers", "processors", "decoders"):
        if component["type"] == "Sequence" and key in component:
            return [step for part in component[key] for step in _steps(part)]
    return [{name: value for name, value in component.items() if name != "trim_offsets"}]


def _used_part(decoder: dict[str, Any] | None) -> dict[str, Any] | None:
    """A decoder without the options of a byte-level one, which only the pre-tokenizer of that name uses."""
    return {"type": "ByteLevel"} if decoder is not None and decoder["type"] == "ByteLevel" else decoder


def _steps_as_text(steps: list[dict[str, Any]]) -> str:
    return " + ".join(_as_json(step) for step in steps) or "none"


def _excerpts(target: str, drafter: str) -> tuple[str, str]:
    """Both texts; of long ones the part around the first difference."""
    start = max((first_difference(target, drafter) or 0) - _EXCERPT_LENGTH // 3, 0)

    def excerpt(text: str) -> str:
        if len(text) <= _EXCERPT_LENGTH:
            return text
        end = start + _EXCERPT_LENGTH
        return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"

    return excerpt(target), excerpt(drafter)


def _as_json(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
