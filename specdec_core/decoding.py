"""The round loop: token ids in, rounds of ids out. Knows nothing of text.

Between rounds the target's cache has the context but its last token, which is fed next. The drafter's has the
same, one token less after a round in which every draft was accepted, or what it had before rounds without its
drafts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import torch

from .drafting import Drafter
from .drafting.length import GammaChoice, GammaPolicy
from .errors import AnswerError
from .out_of_memory import with_second_try
from .runners import RewindableCache, Runner
from .sampling import Sampler, Verdict
from .trace import DraftSource, FinishReason, GammaReason

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
    source: DraftSource | None = None


class NotFiniteError(AnswerError):
    """A model's logits have NaN, +inf or nothing but -inf in a row; `model` is "target" or "drafter"."""

    def __init__(self, model: str) -> None:
        super().__init__(f"The {model}'s logits are not finite.")
        self.model = model


@dataclass(frozen=True, slots=True)
class _Verification:
    """A verdict, with the number of drafts `computed` for it and the seconds of each part."""

    verdict: Verdict
    computed: int
    prefill_s: float
    draft_s: float
    verify_s: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Tokens that an answer may have, and positions that the context may."""

    max_new_tokens: int
    context_length: int


@dataclass(slots=True)
class Decoding:
    """One answer being decoded: its context, the target, and what decides about drafts and the end.

    Of `drafters`, the policy chooses one for each round among those that may draft after the context, before
    any token of the round is drawn. `cache` must hold a proper prefix of `context`, to which emitted ids are
    appended as they come. If memory runs out in a step, `make_room` is called and the step is run again, with
    the same noise.
    """

    context: list[int]
    target: Runner
    cache: RewindableCache
    drafters: Sequence[Drafter]
    sampler: Sampler
    policy: GammaPolicy
    ends: Ends
    limits: Limits
    make_room: Callable[[], None] = lambda: None
    _prompt_length: int = field(init=False)
    _have_prompt: set[DraftSource] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._prompt_length = len(self.context)

    def rounds(self, cancelled: Callable[[], bool]) -> Generator[DecodedRound, None, None]:
        """Yield rounds until something ends the answer.

        `cancelled` is polled between rounds and between chunks of the prefill. However the iteration ends,
        the caches hold nothing past the context. Raises NotFiniteError, and torch's error if memory runs out
        twice in a step.
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
        verdict = with_second_try(lambda: self._first_verdict(cancelled), self._recover)
        if verdict is None:
            return _cancelled(0)
        verdict, kept, finish = self._emit(verdict)
        total_s = time.perf_counter() - started
        return DecodedRound(0, 0, "prefill", verdict, kept, 0.0, total_s, total_s, finish)

    def _first_verdict(self, cancelled: Callable[[], bool]) -> Verdict | None:
        """The outcome of the prefill; None if it was cancelled."""
        logits = self.target.prefill(self.cache, self.context[self.cache.length :], cancelled)
        if logits is None:
            return None
        self.sampler.start_round(self.context, 0)
        return self._read(self.sampler.verify(logits))

    @torch.inference_mode()
    def _round(self, index: int, cancelled: Callable[[], bool]) -> DecodedRound:
        """Draft up to gamma tokens, verify them in one target forward, emit what is accepted and one more."""
        started = time.perf_counter()
        choice, gamma, drafter = self._choose()
        done = with_second_try(lambda: self._verify_drafts(gamma, drafter, cancelled), self._recover)
        if done is None:
            return _cancelled(index)
        verdict, kept, finish = self._emit(done.verdict)
        self._rewind()
        if choice.reason != "drafter_context":
            self.policy.observe(
                len(verdict.drafts), verdict.accepted, done.draft_s, done.verify_s, done.computed
            )
        return DecodedRound(
            index=index,
            gamma=gamma,
            gamma_reason=choice.reason,
            verdict=verdict,
            kept=kept,
            draft_s=done.draft_s,
            verify_s=done.verify_s,
            total_s=time.perf_counter() - started - done.prefill_s,
            finish_reason=finish,
            gamma_gain=choice.gain,
            gamma_cut=gamma < choice.gamma,
            source=drafter.source if drafter is not None and verdict.drafts else None,
        )

    def _choose(self) -> tuple[GammaChoice, int, Drafter | None]:
        """The policy's choice, the gamma that there is room for, and the drafter of the chosen offer."""
        offers = [offer for each in self.drafters if (offer := each.offer(self.context)) is not None]
        choice = self.policy.choose(offers)
        if choice.offer is None:
            if self.drafters and not offers:
                choice = GammaChoice(0, self.drafters[-1].obstacle)
            return choice, min(choice.gamma, self._room() - 1), None
        drafter = next(each for each in self.drafters if each.source == choice.offer.source)
        return choice, min(choice.gamma, self._room() - 1, choice.offer.room), drafter

    def _verify_drafts(
        self, gamma: int, drafter: Drafter | None, cancelled: Callable[[], bool]
    ) -> _Verification | None:
        """Draft and verify, without a change to the context. Returns None if cancelled."""
        clock = self.target.clock
        self.sampler.start_round(self.context, gamma)
        before_catch_up = clock.mark()
        reads_prompt = False
        if gamma > 0 and drafter is not None:
            if not drafter.catch_up(self.context, cancelled):
                return None
            reads_prompt = drafter.source not in self._have_prompt
            self._have_prompt.add(drafter.source)
        before_draft = clock.mark()
        if gamma > 0 and drafter is not None:
            drafter.propose(self.context, gamma, self.sampler)
        before_verify = clock.mark()
        rows = self.sampler.rows
        outcome = self.target.forward(self.cache, rows, then=self.sampler.verify)
        after_verify = clock.mark()
        verdict = self._read(outcome)  # synchronizes, so that every mark can be read
        return _Verification(
            verdict,
            computed=rows.shape[0] - 1,
            # The drafter's prefill of the prompt is not part of a round; its catching up later is.
            prefill_s=clock.seconds(before_catch_up, before_draft) if reads_prompt else 0.0,
            draft_s=clock.seconds(before_draft, before_verify),
            verify_s=clock.seconds(before_verify, after_verify),
        )

    def _read(self, outcome: object) -> Verdict:
        verdict = self.sampler.read(outcome)
        if (model := verdict.not_finite) is not None:
            raise NotFiniteError(model)
        return verdict

    def _recover(self) -> None:
        """Prepare for a second run of a step that memory ran out in."""
        self._rewind()
        self.make_room()

    def _rewind(self) -> None:
        """Back to the invariant: the context but for its last token."""
        self.cache.rewind(len(self.context) - 1)
        for drafter in self.drafters:
            drafter.rewind(len(self.context) - 1)

    def _room(self) -> int:
        """Number of tokens that may still be emitted."""
        in_answer = self.limits.max_new_tokens - (len(self.context) - self._prompt_length)
        return min(in_answer, self.limits.context_length - len(self.context))

    def _emit(self, verdict: Verdict) -> tuple[Verdict, int, FinishReason | None]:
        new = [*verdict.drafts[: verdict.accepted], verdict.token]
        kept, finish = self.ends(new)
        self.context += new[:kept]
        if kept <= verdict.accepted and finish is not None:
            verdict = verdict.cut_to(kept)  # what follows the end of the answer counts nowhere
        if finish is None and self._room() <= 0:
            full = len(self.context) >= self.limits.context_length
            finish = "context" if full else "length"
        return verdict, kept, finish


def _cancelled(index: int) -> DecodedRound:
    return DecodedRound(index, 0, "cancelled", None, 0, 0.0, 0.0, 0.0, "cancelled")
