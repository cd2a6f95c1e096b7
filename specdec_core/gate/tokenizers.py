"""Differences between two tokenizers: vocabulary, and the tokens that they cut a probe text into.

Compares tokenizers as loaded. Knows nothing of configurations, logits or verdicts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from ..hub.tokenizer_rules import CuttingDifference, quoted
from ..trace import first_difference

PROBE_TEXT = (
    "The quick brown fox can't jump; it's 3.14159 or 1,234,567 — isn't it?  Two  spaces,\ttabs\n\n\tand "
    "lines.\r\n"
    "naïve café, Straße, ÅNGSTRÖM, ﬁne ½ e\u0301 ＦＵＬＬ. Привет, мир! Γειά σου. שלום עולם. مرحبا بالعالم. "
    "हिन्दी में नमस्ते। ภาษาไทย 你好，世界。こんにちは、カタカナ。안녕하세요. 👩‍👩‍👧 🇩🇪 ✈️ \u200b\u00a0\ufeff "
    'def f(x_1): return {"a": [x ** 2, 0xFF]}  # <b>&amp;</b> https://a.b/c?d=%20 <s> [UNK] ▁Ġ <0x0A> Zażółć'
)
"""Scripts, spaces, digits, quotes, combining marks and code: text that tokenizers often cut differently."""


@dataclass(frozen=True, slots=True)
class VocabularyDifference:
    """The first id that stands for different strings, None where it is missing, and counts of such ids."""

    first_id: int
    target_token: str | None
    drafter_token: str | None
    changed: int
    target_only: int
    drafter_only: int


def vocabulary_difference(target: dict[str, int], drafter: dict[str, int]) -> VocabularyDifference | None:
    """Compare two token → id maps, added tokens included. None if they are equal."""
    if target == drafter:
        return None
    target_tokens, drafter_tokens = _by_id(target), _by_id(drafter)
    differing = [
        token_id
        for token_id in target_tokens.keys() | drafter_tokens.keys()
        if target_tokens.get(token_id) != drafter_tokens.get(token_id)
    ]
    first = min(differing)
    target_only = sum(token_id not in drafter_tokens for token_id in differing)
    drafter_only = sum(token_id not in target_tokens for token_id in differing)
    return VocabularyDifference(
        first_id=first,
        target_token=target_tokens.get(first),
        drafter_token=drafter_tokens.get(first),
        changed=len(differing) - target_only - drafter_only,
        target_only=target_only,
        drafter_only=drafter_only,
    )


def probe_difference(
    target: PreTrainedTokenizerBase, drafter: PreTrainedTokenizerBase
) -> CuttingDifference | None:
    """Compare the ids of PROBE_TEXT, for tokenizers without a serialized form. None if they are equal."""
    target_ids = target.encode(PROBE_TEXT, add_special_tokens=False)
    drafter_ids = drafter.encode(PROBE_TEXT, add_special_tokens=False)
    at = first_difference(target_ids, drafter_ids)
    if at is None:
        return None
    return CuttingDifference(
        f"piece {at + 1} of the probe text",
        _piece(target, target_ids, at),
        _piece(drafter, drafter_ids, at),
    )


def _by_id(vocabulary: dict[str, int]) -> dict[int, str]:
    tokens: dict[int, list[str]] = defaultdict(list)
    for token, token_id in vocabulary.items():
        tokens[token_id].append(token)
    return {token_id: " and ".join(sorted(names)) for token_id, names in tokens.items()}


def _piece(tokenizer: PreTrainedTokenizerBase, ids: list[int], at: int) -> str:
    return quoted(str(tokenizer.convert_ids_to_tokens(ids[at]))) if at < len(ids) else "nothing"
