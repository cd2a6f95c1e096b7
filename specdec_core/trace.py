"""The trace of an answer as plain data: rounds of tokens, and their JSON form.

Knows nothing of models, tensors or views.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

TokenKind = Literal["accepted", "rejected", "untested", "correction", "bonus", "plain"]
FinishReason = Literal["eos", "stop", "length", "context", "cancelled"]
GammaReason = Literal[
    "prefill",
    "fixed",
    "baseline",
    "auto",
    "probe",
    "unprofitable",
    "drafter_context",
    "no_match",
    "transformers",
    "llama.cpp",
    "cancelled",
]
"""Reason for a round's gamma. "auto": the largest expected rate; "probe": a draft to measure whether drafting
pays again; "unprofitable": no draft is expected to pay; "drafter_context": the drafter's context is full;
"no_match": the context's last ids did not occur before, so that there is no n-gram to draft from;
"transformers" and "llama.cpp": a step of their own code.
"""

DraftSource = Literal["model", "ngram"]
"""A kind of drafter."""

DRAFTED_KINDS: frozenset[str] = frozenset({"accepted", "rejected", "untested"})
TESTED_KINDS: frozenset[str] = frozenset({"accepted", "rejected"})
EMITTED_KINDS: frozenset[str] = frozenset({"accepted", "correction", "bonus", "plain"})


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that a model might have chosen at a position, with p and q (None where no draft was asked for).

    `text` is what it would add there. At temperature 0 the probabilities are those of temperature 1.
    """

    id: int
    text: str
    target_prob: float
    drafter_prob: float | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a round, emitted or not.

    `text` is what the token adds after those before it ("" while a character is incomplete).
    `target_prob` and `drafter_prob` are p and q as the verification used them (at temperature 0 both
    are one-hot), None where not computed. `alternatives` are the likeliest tokens of the target at its
    position, itself among them if it is one, and `drafter_alternatives` those of the drafter, the likeliest
    first; None unless settings.alternatives asks for some.
    """

    id: int
    text: str
    kind: TokenKind
    target_prob: float | None = None
    drafter_prob: float | None = None
    alternatives: list[Alternative] | None = None
    drafter_alternatives: list[Alternative] | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of one answer. Rates are None if nothing was counted; the token of the prefill is left out
    of `rounds`, `block_efficiency` and `tokens_per_second`.
    """

    rounds: int
    drafted: int
    tested: int
    accepted: int
    acceptance_rate: float | None
    accepted_per_drafted: float | None
    block_efficiency: float | None
    acceptance_by_position: list[float | None]
    tokens_per_second: float | None
    time_to_first_token_s: float
    draft_s: float
    verify_s: float
    overhead_s: float
    new_tokens: int
    prompt_tokens: int
    cached_prompt_tokens: int
    dropped_messages: int
    seed: int | None
    same_rows: int | None = None
    """Tokens of the answer whose logits the target computed bit for bit as in plain decoding, a row beside
    others like one alone: its runner compared both when it was loaded. None where it did not.
    """
    thought_tokens: int = 0
    """Those of `new_tokens` that are a thought before the answer proper, with its tags."""


@dataclass(frozen=True, slots=True)
class Round:
    """One step of the loop.

    `tokens` are the drafts in order, then the target's own; those of an emitted kind are in the answer, the
    first of them at index `position`. Round 0 is the prefill: one token, and `verify_s` is its time. `text`
    is that of the answer proper, `thought` that of a thought before it. `stats` and `finish_reason` are None
    except in the last round.
    `gamma_gain` is the expected rate over the plain one, if gamma was chosen for it; `gamma_cut` is True if
    gamma was limited by the room left in the answer, in the context or in the drafter's context. `source` is
    the drafter of the round's drafts, None without drafts.
    """

    index: int
    position: int
    gamma: int
    gamma_reason: GammaReason
    tokens: list[Token]
    text: str
    draft_s: float
    verify_s: float
    overhead_s: float
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    gamma_gain: float | None = None
    gamma_cut: bool = False
    thought: str = ""
    source: DraftSource | None = None

    @property
    def emitted(self) -> list[Token]:
        """The tokens that are in the answer."""
        return [token for token in self.tokens if token.kind in EMITTED_KINDS]

    @property
    def drafted(self) -> list[Token]:
        """The drafts: accepted, rejected and untested."""
        return [token for token in self.tokens if token.kind in DRAFTED_KINDS]

    @property
    def seconds(self) -> float:
        """Duration of the round."""
        return self.draft_s + self.verify_s + self.overhead_s

    def to_dict(self) -> dict[str, Any]:
        """Return the round as values for JSON; `from_dict` is the inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Round:
        """Build a round from `to_dict`'s values. Raises ValueError with the field's name for other data."""
        values = _checked(cls, data)
        values["tokens"] = [_token(token) for token in values["tokens"]]
        if values.get("stats") is not None:
            values["stats"] = Stats(**_checked(Stats, values["stats"]))
        return cls(**values)


def counted_rounds(rounds: Iterable[Round]) -> list[Round]:
    """Return the rounds that rates are computed over: round 0 (the prefill) and rounds without a token, which
    only say how the answer ended, are left out.
    """
    return [rnd for rnd in rounds if rnd.index > 0 and rnd.tokens]


def first_difference(one: Sequence[object], other: Sequence[object]) -> int | None:
    """Return the first index at which two sequences differ (the shorter one's length where it is a prefix of
    the other), None where they are equal.
    """
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return None if len(one) == len(other) else min(len(one), len(other))


def emitted_ids(rounds: Iterable[Round]) -> list[int]:
    """Return the ids of the answer, with the EOS if one ended it."""
    return [token.id for rnd in rounds for token in rnd.emitted]


def _token(data: Mapping[str, Any]) -> Token:
    values = _checked(Token, data)
    for name in ("alternatives", "drafter_alternatives"):
        if values.get(name) is not None:
            if not isinstance(values[name], list):
                raise ValueError(f"{name} of a token must be a list.")
            values[name] = [Alternative(**_checked(Alternative, each)) for each in values[name]]
    return Token(**values)


def _checked(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"{_named(cls).capitalize()} must be a JSON object, not {type(data).__name__}.")
    known = {field.name for field in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING}
    if unknown := set(data) - known:
        raise ValueError(f"Unknown field in {_named(cls)}: {', '.join(sorted(unknown))}.")
    if missing := required - set(data):
        raise ValueError(f"Missing field in {_named(cls)}: {', '.join(sorted(missing))}.")
    for name, value in data.items():
        numbers = value if isinstance(value, list) else [value]
        if not all(math.isfinite(number) for number in numbers if isinstance(number, float)):
            raise ValueError(f"{name} of {_named(cls)} must be finite, not {value}.")
    return dict(data)


def _named(cls: type) -> str:
    name = cls.__name__.lower()
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
