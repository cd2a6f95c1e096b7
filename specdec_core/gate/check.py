"""The gate: may these two models be paired?

Reads configurations and tokenizer files, never weights; only what follows a pass may touch those. The rule:
the same tokenizer, and logits over the same vocabulary, or p/q would compare unrelated tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from transformers import PreTrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..hub.model_files import read_model_files
from ..settings import VocabPadding
from .logit_width import check_configured_width, check_logit_width, require_vocab_padding
from .report import SHARE_A_TOKENIZER, Check, PairReport
from .tokenizers import (
    PROBE_TEXT,
    CuttingDifference,
    cutting_differences,
    describe_cutting,
    probe_difference,
    quoted,
    serialized,
    vocabulary_difference,
)

__all__ = ["Check", "PairReport", "VocabPadding", "check_logit_width", "check_pair"]

ROLES = ("bos", "eos", "pad")
# What a decoder-only language model's class is called in config.json.
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def check_pair(
    target: str | os.PathLike[str],
    drafter: str | os.PathLike[str],
    *,
    target_revision: str | None = None,
    drafter_revision: str | None = None,
    vocab_padding: VocabPadding = "refuse",
    token: str | None = None,
) -> PairReport:
    """Compares two models (Hub ids or folders) by configuration and tokenizer; downloads no weights.

    Raises PairUncheckableError where one of them cannot be read, SettingsError for another `vocab_padding`.
    """
    require_vocab_padding(vocab_padding)
    target_files = read_model_files(target, target_revision, token)
    same = (os.fspath(drafter), drafter_revision) == (os.fspath(target), target_revision)
    drafter_files = target_files if same else read_model_files(drafter, drafter_revision, token)

    vocabulary = _check_vocabulary(target_files.vocabulary, drafter_files.vocabulary)
    cutting = _check_cutting(target_files.tokenizer, drafter_files.tokenizer)
    same_tokenizer = vocabulary.status == "pass" and cutting.status in ("pass", "warning")
    return PairReport(
        target=target_files.name,
        drafter=drafter_files.name,
        checks=(
            _check_kind(target_files.config, drafter_files.config),
            vocabulary,
            cutting,
            _check_special_tokens(target_files.tokenizer, drafter_files.tokenizer),
            check_configured_width(target_files, drafter_files, same_tokenizer, vocab_padding),
        ),
        tokenizer=target_files.tokenizer,
        tokenizer_width=target_files.tokenizer_width,
    )


def _check_kind(target: PreTrainedConfig, drafter: PreTrainedConfig) -> Check:
    reasons = [
        f"The {whose} {reason}"
        for whose, config in (("target", target), ("drafter", drafter))
        if (reason := _not_causal(config)) is not None
    ]
    explanation = "Both continue text token by token."
    if reasons:
        explanation = f"{' '.join(reasons)} Choose decoder-only language models."
    return Check("model kind", "fail" if reasons else "pass", _kind(target), _kind(drafter), explanation)


def _kind(config: PreTrainedConfig) -> str:
    return ", ".join(config.architectures or ()) or f"model type {config.model_type}"


def _not_causal(config: PreTrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "is an encoder-decoder model: its decoder does not continue the prompt itself."
    architectures = config.architectures or ()
    if architectures and not any(name.endswith(_CAUSAL_ENDINGS) for name in architectures):
        return f"is saved as {', '.join(architectures)}, which puts out no next-token logits."
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return f"has model type {config.model_type}, which transformers has no causal language model for."
    return None


def _check_vocabulary(target: dict[str, int], drafter: dict[str, int]) -> Check:
    sizes = [f"{len(vocabulary):,} tokens" for vocabulary in (target, drafter)]
    difference = vocabulary_difference(target, drafter)
    if difference is None:
        return Check("vocabulary", "pass", *sizes, "Every id stands for the same string in both.")
    first = difference.first_id
    tokens = [quoted(token) for token in (difference.target_token, difference.drafter_token)]
    counts = {
        "stand for another string": difference.changed,
        "only the target has": difference.target_only,
        "only the drafter has": difference.drafter_only,
    }
    counted = ", ".join(f"{_count(count, 'id')} {what}" for what, count in counts.items() if count)
    return Check(
        "vocabulary",
        "fail",
        *(f"{size}; id {first} is {token}" for size, token in zip(sizes, tokens, strict=True)),
        f"The vocabularies differ from id {first} on: {tokens[0]} in the target, {tokens[1]} in the drafter "
        f"({counted}). Probabilities of unrelated tokens would be compared. {SHARE_A_TOKENIZER}",
    )


def _check_cutting(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> Check:
    name = "how text is cut"
    forms = [serialized(target), serialized(drafter)]
    if None in forms:
        return _check_cutting_by_probe(name, target, drafter)
    parsed = [json.loads(forms[0])]
    parsed.append(parsed[0] if forms[0] == forms[1] else json.loads(forms[1]))
    differences = cutting_differences(*parsed)
    harmful = [difference for difference in differences if not difference.harmless]
    if harmful:
        return Check(
            name,
            "fail",
            *_both_values(harmful),
            f"The same text becomes other tokens: {_differ(harmful)}. The drafter would be fed pieces that "
            f"it was not trained on. {SHARE_A_TOKENIZER}",
        )
    if differences:
        return Check(
            name,
            "warning",
            *_both_values(differences),
            f"Text is cut alike; {_differ(differences)}, which frames a text with special tokens or turns "
            "ids back into text. The target's tokenizer does that for both.",
        )
    shown = describe_cutting(parsed[0])
    return Check(name, "pass", shown, shown, "The tokenizers cut text by the same rules.")


def _both_values(differences: Sequence[CuttingDifference]) -> tuple[str, str]:
    """Each rule that differs, as the target has it and as the drafter has it."""
    return (
        "; ".join(f"{each.component}: {each.target}" for each in differences),
        "; ".join(f"{each.component}: {each.drafter}" for each in differences),
    )


def _check_cutting_by_probe(
    name: str, target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase
) -> Check:
    kinds = [type(tokenizer).__name__ for tokenizer in (target, drafter)]
    reason = "A tokenizer without a serialized form cannot be compared rule by rule"
    try:
        difference = probe_difference(target, drafter)
    except Exception as error:  # whatever a tokenizer written in Python may raise
        return Check(
            name,
            "unchecked",
            *kinds,
            f"{reason}, and encoding a probe text failed ({type(error).__name__}: {error}). "
            f"{SHARE_A_TOKENIZER}",
        )
    if difference is None:
        return Check(
            name,
            "pass",
            *kinds,
            f"{reason}; both cut a probe text of {len(PROBE_TEXT)} characters in many scripts into the same "
            "tokens.",
        )
    return Check(
        name,
        "fail",
        f"{kinds[0]}; {difference.component}: {difference.target}",
        f"{kinds[1]}; {difference.component}: {difference.drafter}",
        f"{reason}; they cut a multilingual probe text into different tokens. {SHARE_A_TOKENIZER}",
    )


def _differ(differences: Sequence[CuttingDifference]) -> str:
    names = [difference.component for difference in differences]
    if len(names) == 1:
        return f"{names[0]} differs"
    return f"{', '.join(names[:-1])} and {names[-1]} differ"


def _check_special_tokens(target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase) -> Check:
    chosen = [{role: _special_token(tokenizer, role) for role in ROLES} for tokenizer in (target, drafter)]
    values = [", ".join(f"{role} {_token_and_id(*t)}" for role, t in side.items()) for side in chosen]
    differing = [role for role in ROLES if chosen[0][role] != chosen[1][role]]
    moved = [role for role in differing if chosen[0][role][0] == chosen[1][role][0]]
    if moved:
        status = "fail"
        explanation = (
            f"The {' and '.join(moved)} token has another id in each, so what is a control token to one "
            f"model is a word to the other. {SHARE_A_TOKENIZER}"
        )
    elif differing:
        status = "warning"
        explanation = (
            f"They choose another {' and '.join(differing)}; the target's tokenizer is used for both."
        )
    else:
        status, explanation = "pass", "The same tokens in the same roles."
    return Check("special tokens", status, *values, explanation)


def _special_token(tokenizer: PreTrainedTokenizerBase, role: str) -> tuple[str | None, int | None]:
    token = getattr(tokenizer, f"{role}_token", None)
    return (None, None) if token is None else (str(token), tokenizer.convert_tokens_to_ids(str(token)))


def _token_and_id(token: str | None, token_id: int | None) -> str:
    return "none" if token is None else f"{quoted(token)} ({token_id})"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
