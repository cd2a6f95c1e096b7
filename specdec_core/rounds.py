"""Rounds of the trace, from decoded ids and the text of the answer. Knows nothing of models or caches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from .decoding import DecodedRound
from .metrics import summarize
from .sampling import Verdict
from .sampling.alternatives import Candidate
from .settings import Settings
from .text.detokenization import AnswerText
from .trace import Alternative, FinishReason, Round, Token

OtherCode = Literal["transformers", "llama.cpp"]


def build_round(step: DecodedRound, position: int, text: AnswerText) -> Round:
    """Return a decoded round as tokens with their text and probabilities.

    `position` is the index in the answer of its first emitted token; `text` has just taken its ids. The time
    that this takes is part of the round's overhead.
    """
    started = time.perf_counter()
    tokens: list[Token] = []
    verdict = step.verdict
    if verdict is not None:
        accepted = verdict.accepted
        pieces = [*text.pieces[:accepted], *text.dropped(verdict.drafts[accepted:])]
        for at, token_id in enumerate(verdict.drafts):
            kind = "accepted" if at < accepted else "rejected" if at == accepted else "untested"
            piece = pieces[at]
            tokens.append(Token(token_id, piece, kind, verdict.target_probs[at], verdict.drafter_probs[at]))
        if step.kept > accepted:
            all_accepted = accepted == len(verdict.drafts)
            kind = "plain" if not verdict.drafts else "bonus" if all_accepted else "correction"
            tokens.append(
                Token(
                    verdict.token,
                    text.pieces[accepted],
                    kind,
                    verdict.token_target_prob,
                    verdict.token_drafter_prob,
                )
            )
        tokens = _with_alternatives(tokens, verdict, text)
    return Round(
        index=step.index,
        position=position,
        gamma=step.gamma,
        gamma_reason=step.gamma_reason,
        tokens=tokens,
        text=text.take(final=step.finish_reason is not None),
        thought=text.thought,
        draft_s=step.draft_s,
        verify_s=step.verify_s,
        overhead_s=max(0.0, step.total_s - step.draft_s - step.verify_s) + time.perf_counter() - started,
        finish_reason=step.finish_reason,
        gamma_gain=step.gamma_gain,
        gamma_cut=step.gamma_cut,
        source=step.source,
    )


def _with_alternatives(tokens: list[Token], verdict: Verdict, text: AnswerText) -> list[Token]:
    """The tokens of a round with the alternatives at their positions, if the verdict has any."""
    if verdict.alternatives is None:
        return tokens

    def spelled(at: int, candidates: Sequence[Candidate]) -> list[Alternative]:
        pieces = text.alternatives_after(verdict.drafts[:at], [each.id for each in candidates])
        return [
            Alternative(each.id, piece, each.target_prob, each.drafter_prob)
            for each, piece in zip(candidates, pieces, strict=True)
        ]

    found = []
    for index, token in enumerate(tokens):
        at = index if index < len(verdict.drafts) else verdict.accepted
        here = verdict.alternatives[at]
        found.append(
            replace(
                token,
                alternatives=spelled(at, here.target),
                drafter_alternatives=spelled(at, here.drafter),
            )
        )
    return found


def plain_round(
    code: OtherCode,
    index: int,
    position: int,
    ids: Sequence[int],
    seconds: float,
    text: AnswerText,
    final: bool = False,
) -> Round:
    """Return the round of plain tokens `ids` of other code, of which the first is the answer's token
    `position`.
    """
    tokens = [Token(token_id, piece, "plain") for token_id, piece in zip(ids, text.pieces, strict=False)]
    return Round(
        index=index,
        position=position,
        gamma=0,
        gamma_reason=code,
        tokens=tokens,
        text=text.take(final=final),
        thought=text.thought,
        draft_s=0.0,
        verify_s=seconds,
        overhead_s=0.0,
    )


def last_plain_round(
    code: OtherCode,
    rounds: Sequence[Round],
    position: int,
    text: AnswerText,
    finish: FinishReason,
    prompt_tokens: int,
    settings: Settings,
) -> Round:
    """Return the round without tokens that ends an answer of other code, with the withheld text and stats."""
    last = plain_round(code, len(rounds), position, [], 0.0, text, final=True)
    stats = summarize(
        rounds,
        time_to_first_token_s=rounds[0].seconds if rounds else 0.0,
        prompt_tokens=prompt_tokens,
        seed=settings.seed,
        thought_tokens=text.thought_tokens,
    )
    return replace(last, finish_reason=finish, stats=stats)
