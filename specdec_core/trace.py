"""Round and Token: what happened while an answer was made, as plain data, to JSON and back.

Knows nothing of models, tensors or how the data is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

TokenKind = Literal["accepted", "rejected", "untested", "correction", "bonus", "plain"]
FinishReason = Literal["eos", "stop", "length", "context", "cancelled"]

DRAFTED_KINDS: frozenset[str] = frozenset({"accepted", "rejected", "untested"})
TESTED_KINDS: frozenset[str] = frozenset({"accepted", "rejected"})
EMITTED_KINDS: frozenset[str] = frozenset({"accepted", "correction", "bonus", "plain"})


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a round, emitted or not.

    `text` is what the token adds after those before it ("" while a character is incomplete).
    `target_prob` and `drafter_prob` are p and q as the verification used them (at temperature 0 both
    are one-hot), None where not computed.
    """

    id: int
    text: str
    kind: TokenKind
    target_prob: float | None = None
    drafter_prob: float | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """The figures of one answer. Rates are None where nothing was counted; the token that prefill yields
    belongs to no round and is left out of `rounds`, `block_efficiency` and `tokens_per_second`.
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


@dataclass(frozen=True, slots=True)
class Round:
    """One step of the loop.

    `tokens` are in the order drafted, then the target's own; those of an emitted kind are in the answer.
    `position` is the index of the first of them in the answer. Round 0 holds only the token that prefill
    yields, and its `verify_s` is the prefill. `stats` and `finish_reason` are None but on the last round.
    """

    index: int
    position: int
    gamma: int
    gamma_reason: str
    tokens: list[Token]
    text: str
    draft_s: float
    verify_s: float
    overhead_s: float
    finish_reason: FinishReason | None = None
    stats: Stats | None = None

    @property
    def emitted(self) -> list[Token]:
        return [token for token in self.tokens if token.kind in EMITTED_KINDS]

    @property
    def drafted(self) -> list[Token]:
        return [token for token in self.tokens if token.kind in DRAFTED_KINDS]

    @property
    def seconds(self) -> float:
        return self.draft_s + self.verify_s + self.overhead_s

    def to_dict(self) -> dict[str, Any]:
        """The round as values that `json.dumps` takes; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Round:
        """Raises ValueError, naming the field, when `data` is not a round."""
        values = _checked(cls, data)
        values["tokens"] = [Token(**_checked(Token, token)) for token in values["tokens"]]
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
    """The ids of the answer, in order, the EOS included where one ended it."""
    return [token.id for rnd in rounds for token in rnd.emitted]


def _checked(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ValueError(f"A {cls.__name__.lower()} must be a JSON object, not {type(data).__name__}.")
    known = {field.name for field in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING}
    if unknown := set(data) - known:
        raise ValueError(f"Unknown field in a {cls.__name__.lower()}: {', '.join(sorted(unknown))}.")
    if missing := required - set(data):
        raise ValueError(f"Missing field in a {cls.__name__.lower()}: {', '.join(sorted(missing))}.")
    return dict(data)
