"""Words for traces: kinds of tokens and reasons for gamma. The page's scripts get them as data.

The kinds and the reasons are those of specdec_core; knows nothing of components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import specdec_core as sd


@dataclass(frozen=True)
class KindWords:
    """A kind of token in words: a label for one token, and the meaning of its mark."""

    label: str
    meaning: str


TOKEN_KINDS: Mapping[sd.TokenKind, KindWords] = {
    "accepted": KindWords("accepted draft", "a draft that the target tested and kept"),
    "rejected": KindWords("rejected draft", "a draft that it tested and threw away"),
    "untested": KindWords("untested draft", "drafted after a rejected token, so thrown away without a test"),
    "correction": KindWords(
        "correction by the target", "the target's own token in place of the rejected one"
    ),
    "bonus": KindWords(
        "bonus token of the target", "the target's own token after a round in which every draft stood"
    ),
    "plain": KindWords(
        "token of the target, not drafted",
        "the target's own token where nothing was drafted, as at the start",
    ),
}
"""Every kind of token, in the order of the legend."""

GAMMA_REASONS: Mapping[sd.GammaReason, str] = {
    "prefill": "the prompt is being read",
    "fixed": "as the settings ask",
    "baseline": "plain decoding: nothing is drafted",
    "auto": "chosen for this round: {gain}× the plain rate is expected",
    "probe": "chosen for this round: a probe, whether drafting pays again",
    "unprofitable": "chosen for this round: no draft is expected to pay",
    "drafter_context": "no drafts: the drafter's context is full",
    "no_match": "no drafts: the last words did not occur before",
    "transformers": "transformers",
    "llama.cpp": "llama.cpp",
    "cancelled": "cancelled",
}
"""Every reason for a round's gamma; `{gain}` stands for the expected rate over the plain one."""

DRAFT_SOURCES: Mapping[sd.DraftSource, str] = {
    "model": "; drafts of the drafter",
    "ngram": "; drafts by repetition (n-gram)",
}
"""Addition to the reason for a gamma: the drafter of the round."""

GAMMA_CUT = ", cut to the room left"
"""Addition to the reason for a gamma that was limited by the room left."""


def script_data() -> dict[str, Any]:
    """Return the tables as JSON values for the page's scripts."""
    return {
        "tokenKinds": {
            kind: {
                "label": words.label,
                "drafted": kind in sd.DRAFTED_KINDS,
                "emitted": kind in sd.EMITTED_KINDS,
            }
            for kind, words in TOKEN_KINDS.items()
        },
        "gammaReasons": dict(GAMMA_REASONS),
        "gammaCut": GAMMA_CUT,
        "draftSources": dict(DRAFT_SOURCES),
    }
