"""The width of the logits: is there one for every id, and do both models put out equally many?

Compares numbers: first those of the configurations and, once loaded, those of the output layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

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
    """The gate's last word, on the rows of the real output layers: the target's and, if any, the drafter's.

    `tokenizer_width` is the tokenizer's highest id + 1 (`PairReport.tokenizer_width`). Returns the width that
    logits are to be cut to. Raises IncompatiblePairError, as the gate does before loading.
    """
    require_vocab_padding(vocab_padding)
    check = _compare(
        widths[0], widths[-1], [tokenizer_width] * 2, True, vocab_padding, "rows of the loaded output layers"
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
    """Compares the configurations; `same_tokenizer` says what the gate found of the tokenizers."""
    widths = [_configured_width(files.config) for files in (target, drafter)]
    unknown = [files.name for files, width in zip((target, drafter), widths, strict=True) if width is None]
    if unknown:
        return Check(
            NAME,
            "unchecked",
            *("not in config.json" if width is None else f"{width:,}" for width in widths),
            f"config.json of {' and of '.join(unknown)} names no vocab_size, so the widths cannot be "
            "compared. Add it, or choose another model.",
        )
    needed = (target.tokenizer_width, drafter.tokenizer_width)
    return _compare(*widths, needed, same_tokenizer, vocab_padding, "vocab_size in config.json")


def require_vocab_padding(vocab_padding: Any) -> None:
    """Raises SettingsError for anything but a VocabPadding."""
    choices = get_args(VocabPadding)
    if vocab_padding not in choices:
        raise SettingsError(
            f"vocab_padding must be {' or '.join(map(repr, choices))}, not {vocab_padding!r}."
        )


def _configured_width(config: PreTrainedConfig) -> int | None:
    width = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    return width if isinstance(width, int) else None


def _compare(
    target: int,
    drafter: int,
    needed: Sequence[int],
    same_tokenizer: bool,
    vocab_padding: VocabPadding,
    source: str,
) -> Check:
    """`needed` is each tokenizer's highest id + 1; `source` says where the widths were read."""

    def check(status: Status, explanation: str) -> Check:
        return Check(NAME, status, f"{target:,}", f"{drafter:,}", explanation)

    for whose, width, ids in (("target", target, needed[0]), ("drafter", drafter, needed[1])):
        if width < ids:
            return check(
                "fail",
                f"The {whose} puts out {width:,} logits ({source}), but its tokenizer has ids up to "
                f"{ids - 1:,}: some tokens would have no probability. Configuration and tokenizer do not "
                "belong together; give a complete model.",
            )
    if vocab_padding == "trim" and same_tokenizer:
        return check(
            "pass",
            f"Both are cut to the tokenizer's {needed[0]:,} ids, as vocab_padding = trim asks ({source}).",
        )
    if target == drafter:
        return check("pass", f"Both put out as many logits ({source}).")
    if same_tokenizer:
        return check(
            "fail",
            f"The tokenizers are the same; only the padding of the width differs: {target:,} logits in the "
            f"target, {drafter:,} in the drafter, {needed[0]:,} ids in the tokenizer ({source}). No token "
            'has an id beyond those, so both can be cut to them: put vocab_padding = "trim" in the preset, '
            "or pass --vocab-padding trim.",
        )
    return check(
        "fail",
        f"The target puts out {target:,} logits, the drafter {drafter:,} ({source}). Since the tokenizers "
        f"differ too, cutting both to one width would not help. {SHARE_A_TOKENIZER}",
    )
