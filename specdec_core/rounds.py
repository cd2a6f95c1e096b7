"""Rounds of the trace, from decoded ids and the text of the answer. Knows nothing of models or caches."""

from __future__ import annotations

import time

from .decoding import DecodedRound
from .text.detokenization import AnswerText
from .trace import Round, Token


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
    return Round(
        index=step.index,
        position=position,
        gamma=step.gamma,
        gamma_reason=step.gamma_reason,
        tokens=tokens,
        text=text.take(final=step.finish_reason is not None),
        draft_s=step.draft_s,
        verify_s=step.verify_s,
        overhead_s=max(0.0, step.total_s - step.draft_s - step.verify_s) + time.perf_counter() - started,
        finish_reason=step.finish_reason,
        gamma_gain=step.gamma_gain,
        gamma_cut=step.gamma_cut,
    )
