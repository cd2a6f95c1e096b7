"""Comparison of the logits' widths of target and drafter with each other and with the tokenizer's ids.

Compares numbers: those of the configurations before loading, those of the output layers after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from transformers import PreTrainedConfig

from ..errors import IncompatiblePairError, SettingsError
from ..hub.model_files import ModelFiles
from ..settings import VocabPadding
from .report import SHARE_A_TOKENIZER, Check, PairReport, Status

NAME = "logits width"


def check_logit_width(
    widths: Sequence[int],
    tokenizer_width: int,
    vocab_padding: VocabPadding = "refuse",
    *,
    target: str = "the target",
    drafter: str = "the drafter",
) -> int:
    """Check the rows of the loaded output layers, and return the width that logits are to be cut to.

    `widths` are the target's and, if there is one, the drafter's; `tokenizer_width` is the tokenizer's
    highest id + 1 (`PairReport.tokenizer_width`). `target` and `drafter` are names for the report. Raises
    IncompatiblePairError, SettingsError for another `vocab_padding`.
    """
    require_vocab_padding(vocab_padding)
    check = _compare(
        _Widths(widths[0], tokenizer_width),
        _Widths(widths[-1], tokenizer_width),
        True,
        vocab_padding,
        "rows of the loaded output layers",
    )
    if check.status == "fail":
        raise IncompatiblePairError(PairReport(target, drafter, (check,), tokenizer_width=tokenizer_width))
    return tokenizer_width if vocab_padding == "trim" else widths[0]


def check_configured_width(
    target: ModelFiles,
    drafter: ModelFiles,
    same_tokenizer: bool,
    vocab_padding: VocabPadding,
) -> Check:
    """Compare the widths in the configurations. `same_tokenizer` is the result of the tokenizers' checks."""
    target_width, drafter_width = _configured_width(target.config), _configured_width(drafter.config)
    if target_width is None or drafter_width is None:
        unknown = [
            files.name for files, width in ((target, target_width), (drafter, drafter_width)) if width is None
        ]
        return Check(
            NAME,
            "unchecked",
            _width_text(target_width),
            _width_text(drafter_width),
            f"config.json of {' and of '.join(unknown)} names no vocab_size, so the widths cannot be "
            "compared. Add it, or choose another model.",
        )
    return _compare(
        _Widths(target_width, target.tokenizer_width),
        _Widths(drafter_width, drafter.tokenizer_width),
        same_tokenizer,
        vocab_padding,
        "vocab_size in config.json",
    )


def require_vocab_padding(vocab_padding: object) -> None:
    """Raise SettingsError for anything but a VocabPadding."""
    choices = get_args(VocabPadding)
    if vocab_padding not in choices:
        raise SettingsError(
            f"vocab_padding must be {' or '.join(map(repr, choices))}, not {vocab_padding!r}."
        )


def _configured_width(config: PreTrainedConfig) -> int | None:
    width = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return width if isinstance(width, int) else None


def _width_text(width: int | None) -> str:
    return "not in config.json" if width is None else f"{width:,}"


@dataclass(frozen=True, slots=True)
class _Widths:
    """One model's number of logits, and its tokenizer's highest id + 1."""

    logits: int
    ids: int


def _compare(
    target: _Widths, drafter: _Widths, same_tokenizer: bool, vocab_padding: VocabPadding, source: str
) -> Check:
    """Judge the widths. `source` names their origin in the explanations."""

    def check(status: Status, explanation: str) -> Check:
        return Check(NAME, status, f"{target.logits:,}", f"{drafter.logits:,}", explanation)

    for role, widths in (("target", target), ("drafter", drafter)):
        if widths.logits < widths.ids:
            return check(
                "fail",
                f"The {role} puts out {widths.logits:,} logits ({source}), but its tokenizer has ids up to "
                f"{widths.ids - 1:,}: some tokens would have no probability. Configuration and tokenizer do "
                "not belong together; give a complete model.",
            )
    if vocab_padding == "trim" and same_tokenizer:
        return check(
            "pass",
            f"Both are cut to the tokenizer's {target.ids:,} ids, as vocab_padding = trim asks ({source}).",
        )
    if target.logits == drafter.logits:
        return check("pass", f"Both put out as many logits ({source}).")
    if same_tokenizer:
        return check(
            "fail",
            "The tokenizers are the same; only the padding of the width differs: "
            f"{target.logits:,} logits in the target, {drafter.logits:,} in the drafter, {target.ids:,} ids "
            f"in the tokenizer ({source}). No token has an id beyond those, so both can be cut to them: put "
            'vocab_padding = "trim" in the preset, or pass --vocab-padding trim.',
        )
    return check(
        "fail",
        f"The target puts out {target.logits:,} logits, the drafter {drafter.logits:,} ({source}). Since the "
        f"tokenizers differ too, cutting both to one width would not help. {SHARE_A_TOKENIZER}",
    )
