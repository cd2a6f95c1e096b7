"""The round loop: token ids in, rounds of ids out. Knows nothing of text.

Between rounds the target's cache has the context but its last token, which is fed next; the drafter's has the
same, or one token less after a round in which every draft was accepted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch

from .drafting import Drafter
from .drafting.length import GammaPolicy
from .runners import RewindableCache, Runner
from .sampling import Sampler, Verdict
from .trace import FinishReason, GammaReason

Ends = Callable[[list[int]], tuple[int, FinishReason | None]]
"""From the ids that a round would emit to the number kept, and the reason if the answer ends there."""


@dataclass(frozen=True, slots=True)
class DecodedRound:
    """One round in ids. The first `kept` of (accepted drafts, then the target's token) were emitted; drafts
    beyond the end of an answer are cut off from `verdict`, which is None only if the answer was cancelled
    between rounds. `total_s` is the whole round in seconds on the host's clock, with the choice of gamma,
    without the drafter's prefill of the prompt.
    """

    index: int
    gamma: int
    gamma_reason: GammaReason
    verdict: Verdict | None
    kept: int
    draft_s: float
    verify_s: float
    total_s: float
    finish_reason: FinishReason | None = None
    gamma_gain: float | None = None
    gamma_cut: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens that an answer may have, and positions that the context may."""

    max_new_tokens: int
    context_length: int


@dataclass(slots=True)
class Decoding:
    """One answer being decoded: its context, the two models, and what decides about drafts and the end.

    `cache` must hold a proper prefix of `context`, to which emitted ids are appended as they come.
    """

    context: list[int]
    target: Runner
    cache: RewindableCache
    drafter: Drafter | None
    sampler: Sampler
    policy: GammaPolicy
    ends: Ends
    limits: Limits
    _prompt_length: int = field(init=False)
    _drafter_has_prompt: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self._prompt_length = len(self.context)

    def rounds(self, cancelled: Callable[[], bool]) -> Generator[DecodedRound, None, None]:
        """Yield rounds until something ends the answer.

        `cancelled` is polled between rounds and between chunks of the prefill. However the iteration ends,
        the caches hold nothing past the context.
        """
        try:
            rnd = self._prefill(cancelled)
            yield rnd
            while rnd.finish_reason is None:
                if cancelled():
                    yield _cancelled(rnd.index + 1)
                    return
                rnd = self._round(rnd.index + 1, cancelled)
                yield rnd
        finally:
            self._rewind()

    @torch.inference_mode()
    def _prefill(self, cancelled: Callable[[], bool]) -> DecodedRound:
        """Round 0: prefill the part of the prompt that the target's cache lacks, and emit one token."""
        started = time.perf_counter()
        logits = self.target.prefill(self.cache, self.context[self.cache.length :], cancelled)
        if logits is None:
            return _cancelled(0)
        self.sampler.start_round(self.context, 0)
        verdict, kept, finish = self._emit(self.sampler.read(self.sampler.verify(logits)))
        total_s = time.perf_counter() - started
        return DecodedRound(0, 0, "prefill", verdict, kept, 0.0, total_s, total_s, finish)

    @torch.inference_mode()
    def _round(self, index: int, cancelled: Callable[[], bool]) -> DecodedRound:
        """Draft up to gamma tokens, verify them in one target forward, emit what is accepted and one more."""
        clock = self.target.clock
        started = time.perf_counter()
        choice = self.policy.choose(self.drafter.missing(self.context) if self.drafter else 0)
        gamma = min(choice.gamma, self._room() - 1)
        self.sampler.start_round(self.context, gamma)

        before_catch_up = clock.mark()
        reads_prompt = False
        if gamma > 0 and self.drafter is not None:
            if not self.drafter.catch_up(self.context, cancelled):
                return _cancelled(index)
            reads_prompt = not self._drafter_has_prompt
            self._drafter_has_prompt = True
        before_draft = clock.mark()
        if gamma > 0 and self.drafter is not None:
            self.drafter.propose(self.context, gamma, self.sampler)
        before_verify = clock.mark()
        outcome = self.target.forward(self.cache, self.sampler.rows, then=self.sampler.verify)
        after_verify = clock.mark()
        proposal = self.sampler.read(outcome)  # synchronizes, so that every mark can be read

        verdict, kept, finish = self._emit(proposal)
        self._rewind()
        # The drafter's prefill of the prompt is not part of a round; its catching up later is.
        prefill_s = clock.seconds(before_catch_up, before_draft) if reads_prompt else 0.0
        draft_s = clock.seconds(before_draft, before_verify)
        verify_s = clock.seconds(before_verify, after_verify)
        self.policy.observe(len(proposal.drafts), proposal.accepted, draft_s, verify_s)
        return DecodedRound(
            index=index,
            gamma=gamma,
            gamma_reason=choice.reason,
            verdict=verdict,
            kept=kept,
            draft_s=draft_s,
            verify_s=verify_s,
            total_s=time.perf_counter() - started - prefill_s,
            finish_reason=finish,
            gamma_gain=choice.gain,
            gamma_cut=gamma < choice.gamma,
        )

    def _rewind(self) -> None:
        """Back to the invariant: the context but for its last token."""
        self.cache.rewind(len(self.context) - 1)
        if self.drafter is not None:
            self.drafter.rewind(len(self.context) - 1)

    def _room(self) -> int:
        """Number of tokens that may still be emitted."""
        in_answer = self.limits.max_new_tokens - (len(self.context) - self._prompt_length)
        return min(in_answer, self.limits.context_length - len(self.context))

    def _emit(self, verdict: Verdict) -> tuple[Verdict, int, FinishReason | None]:
        new = [*verdict.drafts[: verdict.accepted], verdict.token]
        kept, finish = self.ends(new)
        self.context += new[:kept]
        if kept <= verdict.accepted and finish is not None:
            verdict = verdict.cut_to(kept)
        if finish is None and self._room() <= 0:
            full = len(self.context) >= self.limits.context_length
            finish = "context" if full else "length"
        return verdict, kept, finish


def _cancelled(index: int) -> DecodedRound:
    return DecodedRound(index, 0, "cancelled", None, 0, 0.0, 0.0, 0.0, "cancelled")
