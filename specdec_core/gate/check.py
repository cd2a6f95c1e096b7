"""Compatibility check of a target and a drafter by model kind, tokenizer and logits' width.

The rule: the same tokenizer, and logits over the same vocabulary, or p/q would compare unrelated tokens.
Reads configurations and tokenizer files, never weights.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import PairUncheckableError, SpecDecError
from ..hub.errors import reason
from ..hub.model_files import ModelFiles, read_model_files
from ..hub.tokenizer_rules import (
    CuttingDifference,
    cutting_differences,
    describe_cutting,
    quoted,
    serialized,
)
from ..out_of_memory import out_of_memory
from ..runners.serving import serving
from ..runners.shared_embedding import shared_embedding
from ..settings import VocabPadding
from ..units import counted
from .logit_width import check_configured_width, check_logit_width, require_vocab_padding
from .report import SHARE_A_TOKENIZER, Check, PairReport, Status
from .size import check_size
from .special_tokens import check_special_tokens
from .tokenizers import PROBE_TEXT, probe_difference, vocabulary_difference
from .weights_format import check_weights_format

__all__ = ["Check", "PairReport", "VocabPadding", "check_logit_width", "check_pair"]

_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""Endings of the class names of decoder-only language models in config.json."""


def check_pair(
    target: str | os.PathLike[str],
    drafter: str | os.PathLike[str] | None,
    *,
    target_revision: str | None = None,
    drafter_revision: str | None = None,
    vocab_padding: VocabPadding = "refuse",
    token: str | None = None,
) -> PairReport:
    """Compare two models (Hub ids or folders) by configuration and tokenizer. Downloads no weights.

    With `drafter` None the target is checked alone, as a pair with itself without regard to speed. `token`
    is a Hub token; None stands for the machine's. Raises PairUncheckableError if a model cannot be read,
    SettingsError for another `vocab_padding`.
    """
    require_vocab_padding(vocab_padding)
    target_files = read_model_files(target, target_revision, token)
    drafter_files = target_files
    if drafter is not None and (os.fspath(drafter), drafter_revision) != (os.fspath(target), target_revision):
        drafter_files = read_model_files(drafter, drafter_revision, token)
    try:
        return _compare(target_files, drafter_files, drafter is None, vocab_padding)
    except Exception as error:  # files made by others hold values of any kind
        if isinstance(error, SpecDecError) or out_of_memory(error):
            raise
        names = " or ".join({target_files.name: None, drafter_files.name: None})
        logging.getLogger(__name__).debug("comparing %s failed", names, exc_info=error)
        raise PairUncheckableError(
            f"{names}: the configuration or the tokenizer's files have a value that cannot be used "
            f"({type(error).__name__}: {reason(error)}). Correct it, or download the files again."
        ) from error


def _compare(target: ModelFiles, drafter: ModelFiles, alone: bool, vocab_padding: VocabPadding) -> PairReport:
    vocabulary = _check_vocabulary(target.vocabulary, drafter.vocabulary)
    cutting = _with_replaced_rules(_check_cutting(target.tokenizer, drafter.tokenizer), target, drafter)
    same_tokenizer = vocabulary.status == "pass" and cutting.status in ("pass", "warning")
    return PairReport(
        target=target.name,
        drafter=None if alone else drafter.name,
        checks=(
            _check_kind(target.config, drafter.config, alone),
            vocabulary,
            cutting,
            check_special_tokens(target.tokenizer, drafter.tokenizer),
            check_configured_width(target, drafter, same_tokenizer, vocab_padding),
            check_weights_format(target, drafter),
            *([] if alone else [check_size(target, drafter)]),
        ),
        tokenizer=target.tokenizer,
        tokenizer_width=target.tokenizer_width,
    )


def _check_kind(target: PreTrainedConfig, drafter: PreTrainedConfig, alone: bool) -> Check:
    reasons = [
        f"The {role} {unfit}"
        for role, config in (("target", target), *([] if alone else [("drafter", drafter)]))
        if (unfit := _unfit(config, alone)) is not None
    ]
    explanation = f"{'It continues' if alone else 'Both continue'} text token by token."
    mismatch = _embedding_mismatch(target, None if alone else drafter)
    if reasons:
        next_step = "Choose decoder-only language models"
        if not alone and serving(target).level == "alone":
            next_step += " whose layers are all attention, or load the target without a drafter"
        explanation = f"{' '.join(reasons)} {next_step}."
    elif mismatch is not None:
        explanation = mismatch
    status: Status = "fail" if reasons or mismatch is not None else "pass"
    return Check("model kind", status, _kind(target), _kind(drafter), explanation)


def _kind(config: PreTrainedConfig) -> str:
    return ", ".join(config.architectures or ()) or f"model type {config.model_type}"


def _unfit(config: PreTrainedConfig, alone: bool) -> str | None:
    if config.is_encoder_decoder:
        return "is an encoder-decoder model: its decoder does not continue the prompt itself."
    architectures = config.architectures or ()
    if architectures and not any(map(_is_causal, architectures)):
        return f"is saved as {', '.join(architectures)}, which puts out no next-token logits."
    verdict = serving(config)
    return verdict.reason if verdict.level == "refused" or (verdict.level == "alone" and not alone) else None


def _embedding_mismatch(target: PreTrainedConfig, drafter: PreTrainedConfig | None) -> str | None:
    """The reason for which a model of a pair, or a target alone, would have no embedding."""
    if (own := shared_embedding(target)) is not None:
        return f"The target has no embedding: it is a drafter for {own.of}. Choose that one as the target."
    shared = None if drafter is None else shared_embedding(drafter)
    if drafter is None or shared is None:
        return None
    widths = [config.get_text_config(decoder=True).hidden_size for config in (target, drafter)]
    if widths[0] == widths[1]:
        return None
    return (
        f"The drafter reads the target's embedding, that of {shared.of}, whose vectors have {widths[1]} "
        f"values; those of this target have {widths[0]}. Choose {shared.of} as the target, or another "
        "drafter."
    )


def _is_causal(class_name: str) -> bool:
    return class_name.endswith(_CAUSAL_ENDINGS) or class_name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()


def _check_vocabulary(target: dict[str, int], drafter: dict[str, int]) -> Check:
    name = "vocabulary"
    target_size, drafter_size = f"{len(target):,} tokens", f"{len(drafter):,} tokens"
    difference = vocabulary_difference(target, drafter)
    if difference is None:
        explanation = "Every id stands for the same string in both."
        return Check(name, "pass", target_size, drafter_size, explanation)
    first = difference.first_id
    target_token, drafter_token = quoted(difference.target_token), quoted(difference.drafter_token)
    counts = {
        "stand for another string": difference.changed,
        "only the target has": difference.target_only,
        "only the drafter has": difference.drafter_only,
    }
    ids = ", ".join(f"{counted(count, 'id')} {what}" for what, count in counts.items() if count)
    return Check(
        name,
        "fail",
        f"{target_size}; id {first} is {target_token}",
        f"{drafter_size}; id {first} is {drafter_token}",
        f"The vocabularies differ from id {first} on: {target_token} in the target, {drafter_token} in the "
        f"drafter ({ids}). Probabilities of unrelated tokens would be compared. {SHARE_A_TOKENIZER}",
    )


_CUTTING = "how text is cut"


def _check_cutting(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> Check:
    target_json, drafter_json = serialized(target), serialized(drafter)
    if target_json is None or drafter_json is None:
        return _check_cutting_by_probe(target, drafter)
    parsed = json.loads(target_json)
    differences = cutting_differences(
        parsed, parsed if drafter_json == target_json else json.loads(drafter_json)
    )
    harmful = [difference for difference in differences if not difference.harmless]
    if harmful:
        explanation = (
            f"The same text becomes other tokens: {_differ(harmful)}. The drafter would be fed pieces that "
            f"it was not trained on. {SHARE_A_TOKENIZER}"
        )
        return _cutting_check("fail", harmful, explanation)
    if differences:
        explanation = (
            f"Text is cut alike; {_differ(differences)}, which frames a text with special tokens or turns "
            "ids back into text. The target's tokenizer does that for both."
        )
        return _cutting_check("warning", differences, explanation)
    description = describe_cutting(parsed)
    return Check(_CUTTING, "pass", description, description, "The tokenizers cut text by the same rules.")


def _with_replaced_rules(check: Check, target: ModelFiles, drafter: ModelFiles) -> Check:
    """Return the check with a warning of what a class of transformers would have replaced."""
    replaced = list(dict.fromkeys(files.replaced for files in (target, drafter) if files.replaced))
    if not replaced:
        return check
    explanation = f"{check.explanation} {'; '.join(replaced)}: what the file says is used."
    return replace(
        check, status="warning" if check.status == "pass" else check.status, explanation=explanation
    )


def _cutting_check(status: Status, differences: Sequence[CuttingDifference], explanation: str) -> Check:
    return Check(
        _CUTTING,
        status,
        "; ".join(f"{difference.component}: {difference.target}" for difference in differences),
        "; ".join(f"{difference.component}: {difference.drafter}" for difference in differences),
        explanation,
    )


def _check_cutting_by_probe(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> Check:
    target_class, drafter_class = type(target).__name__, type(drafter).__name__
    limitation = "A tokenizer without a serialized form cannot be compared rule by rule"
    try:
        difference = probe_difference(target, drafter)
    except Exception as error:  # a tokenizer written in Python may raise anything
        return Check(
            _CUTTING,
            "unchecked",
            target_class,
            drafter_class,
            f"{limitation}, and encoding a probe text failed ({type(error).__name__}: {error}). "
            f"{SHARE_A_TOKENIZER}",
        )
    if difference is None:
        return Check(
            _CUTTING,
            "pass",
            target_class,
            drafter_class,
            f"{limitation}; both cut a probe text of {len(PROBE_TEXT)} characters in many scripts into the "
            "same tokens.",
        )
    return Check(
        _CUTTING,
        "fail",
        f"{target_class}; {difference.component}: {difference.target}",
        f"{drafter_class}; {difference.component}: {difference.drafter}",
        f"{limitation}; they cut a multilingual probe text into different tokens. {SHARE_A_TOKENIZER}",
    )


def _differ(differences: Sequence[CuttingDifference]) -> str:
    names = [difference.component for difference in differences]
    if len(names) == 1:
        return f"{names[0]} differs"
    return f"{', '.join(names[:-1])} and {names[-1]} differ"
