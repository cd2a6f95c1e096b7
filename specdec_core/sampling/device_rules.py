"""Drafting and verification on a device: greedy, rejection or coupled, over the buffers of a pair.

`draft` and `verify` can be captured in a CUDA graph: they have fixed shapes, read every setting, all noise
and the step from the buffers, never synchronize, and are idempotent. Each operation is a node of the graph,
which costs about 2 µs whatever its size; so what the host can compute from the outcome is left to the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .alternatives import Likeliest
from .base import Verdict
from .device_filters import (
    Distributions,
    FilterPath,
    FilterPlan,
    best_of_drafter,
    best_of_target,
    by_sorting,
    min_p_only,
    temperature_only,
)
from .device_outcome import packed, split_likeliest, unpacked, with_likeliest
from .filters import FILTERS, Penalty
from .history import History
from .noise import draw
from .verification import count_accepted, residual, walk_match

if TYPE_CHECKING:
    from .device import DeviceSampling


class Rule(ABC):
    """Drafting and verification by one rule, with the filters of a plan."""

    def __init__(self, sampling: DeviceSampling, plan: FilterPlan) -> None:
        self.sampling = sampling
        self.plan = plan
        # Allocated here, since the first call may be a capture.
        if plan.penalized:
            _ = sampling.counts, sampling.before
        if plan.biased:
            _ = sampling.bias

    @property
    def keeps_q(self) -> bool:
        """True if q of each draft is stored."""
        return True

    @abstractmethod
    def draft(self, logits: Tensor) -> Tensor:
        """Draw a draft from the drafter's logits [1, vocab]; store it and its q [1, vocab] at the step.

        Returns its id [1], int64.
        """

    @abstractmethod
    def verify(self, logits: Tensor) -> Tensor:
        """Verify the drafts with the target's logits [gamma + 1, vocab].

        Returns the outcome as bytes, uint8, which `verdict` decodes.
        """

    @abstractmethod
    def verdict(self, outcome: Tensor, gamma: int, alternatives: int = 0) -> Verdict:
        """Decode the outcome of the round on the host, with this many alternatives. Synchronizes."""

    def _keep(self, token: Tensor) -> Tensor:
        """Store a draft [1] at the step. Returns it."""
        self.sampling.drafts.index_copy_(0, self.sampling.step, token)
        return token

    def _adjusted(self, logits: Tensor, drafting: bool) -> Tensor:
        """Apply biases and penalties to the logits of a draft [1, vocab] or of a verification."""
        if self.plan.biased:
            logits = logits.float() + self.sampling.bias
        if self.plan.penalized:
            logits, history = logits.float(), self._history(logits.shape[0], drafting)
            for each in FILTERS:
                if isinstance(each, Penalty):
                    logits = each.function(logits, self.sampling.inputs.values[each.setting], history)
        return logits

    def _history(self, rows: int, drafting: bool) -> History:
        """The history of the row at the step, or of the rows of a verification."""
        drafts, before = self.sampling.drafts, self.sampling.before
        if drafting:
            # Drafts from the step on are of earlier rounds; `before` is 0 for them.
            before = before.index_select(0, self.sampling.step)
        else:
            drafts, before = drafts[: rows - 1], before[:rows, : rows - 1]
        return History.of_rows(self.sampling.counts, drafts, before)

    def _with_likeliest(self, outcome: Tensor, p: Tensor) -> Tensor:
        """Return the outcome with the alternatives of p [gamma + 1, vocab] behind it."""
        return with_likeliest(outcome, p, self.sampling.q[: p.shape[0] - 1])

    def _likeliest(self, outcome: Tensor, gamma: int, count: int) -> tuple[Tensor, list[Likeliest] | None]:
        """Split an outcome on the host into what the rule packed, and the alternatives if there are any."""
        if not self.plan.alternatives:
            return outcome, None
        return split_likeliest(outcome, gamma, self.sampling.vocab, count)


class GreedyRule(Rule):
    """Temperature 0: both models take the argmax, so p and q are one-hot. Alternatives have the
    probabilities of temperature 1.
    """

    @property
    def keeps_q(self) -> bool:
        """See Rule.keeps_q."""
        return self.plan.alternatives

    def draft(self, logits: Tensor) -> Tensor:
        """See Rule.draft."""
        scores = self._adjusted(logits, drafting=True)
        best, choice = scores.max(-1)
        self.sampling.best.index_copy_(0, self.sampling.step, best.float())
        if self.keeps_q:
            self.sampling.q.index_copy_(0, self.sampling.step, scores.float().softmax(-1))
        return self._keep(choice)

    def verify(self, logits: Tensor) -> Tensor:
        """See Rule.verify."""
        gamma = logits.shape[0] - 1
        scores = self._adjusted(logits, drafting=False)
        best, choices = scores.max(-1)
        drafts = self.sampling.drafts[:gamma]
        outcome = packed([choices, drafts], [best.float(), self.sampling.best[:gamma]])
        return (
            self._with_likeliest(outcome, scores.float().softmax(-1)) if self.plan.alternatives else outcome
        )

    def verdict(self, outcome: Tensor, gamma: int, alternatives: int = 0) -> Verdict:
        """See Rule.verdict."""
        outcome, found = self._likeliest(outcome.cpu(), gamma, alternatives)
        ints, floats = unpacked(outcome, 2 * gamma + 1)
        choices, drafts = ints[: gamma + 1], ints[gamma + 1 :]
        certain = [1.0 if math.isfinite(score) else math.nan for score in floats]
        accepted, token = walk_match(choices, drafts)
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=[p * (x == y) for x, y, p in zip(drafts, choices, certain, strict=False)],
            drafter_probs=certain[gamma + 1 :],
            token_target_prob=certain[accepted],
            token_drafter_prob=0.0 if accepted < gamma else None,
            alternatives=found,
        )


class FilteredRule(Rule):
    """Base of the rules at a temperature, whose cuts are computed in the way that the plan says."""

    def __init__(self, sampling: DeviceSampling, plan: FilterPlan) -> None:
        super().__init__(sampling, plan)
        self._scores = sampling.scores if plan.path is FilterPath.BEST else None

    def verify(self, logits: Tensor) -> Tensor:
        """See Rule.verify."""
        return self._outcome(self._target(self._adjusted(logits, drafting=False)))

    def _outcome(self, target: Distributions) -> Tensor:
        """Verify with the target's distributions of gamma + 1 rows. Returns the outcome with alternatives."""
        outcome = self._verify(target)
        if not self.plan.alternatives:
            return outcome
        return self._with_likeliest(outcome, target.over_all_ids(target.probs, self.sampling.vocab))

    @abstractmethod
    def _verify(self, target: Distributions) -> Tensor:
        """Verify the drafts with the target's distributions of gamma + 1 rows."""

    def verdict(self, outcome: Tensor, gamma: int, alternatives: int = 0) -> Verdict:
        """See Rule.verdict. If a row overflows, the round is verified again, with everything sorted."""
        outcome, found = self._likeliest(outcome.cpu(), gamma, alternatives)
        decoded = self._decoded(outcome, gamma)
        if decoded.overflows and self._scores is not None:
            again = self._outcome(self._cut(by_sorting(self._scores[: gamma + 1], self.sampling.inputs)))
            outcome, found = self._likeliest(again.cpu(), gamma, alternatives)
            decoded = self._decoded(outcome, gamma)
        return replace(decoded.verdict, alternatives=found) if found is not None else decoded.verdict

    @abstractmethod
    def _decoded(self, outcome: Tensor, gamma: int) -> _Decoded:
        """Decode an outcome, without alternatives, on the host."""

    def _drafter(self, logits: Tensor) -> Distributions:
        logits = self._adjusted(logits, drafting=True)
        if self.plan.path is FilterPath.BEST:
            return self._cut(best_of_drafter(logits, self.sampling.inputs, self.sampling.width))
        return self._of_whole_rows(logits)

    def _target(self, logits: Tensor) -> Distributions:
        if self._scores is not None:
            scores = self._scores[: logits.shape[0]]
            return self._cut(best_of_target(logits, self.sampling.inputs, self.sampling.width, scores))
        return self._of_whole_rows(logits)

    def _of_whole_rows(self, logits: Tensor) -> Distributions:
        inputs, path = self.sampling.inputs, self.plan.path
        if path is FilterPath.SORTED:
            return self._cut(by_sorting(logits * inputs.inverse_temperature, inputs))
        return self._cut((min_p_only if path is FilterPath.MIN_P else temperature_only)(logits, inputs))

    def _cut(self, distributions: Distributions) -> Distributions:
        """Apply the cuts that are not by rank."""
        for each in self.plan.cuts:
            value = self.sampling.inputs.values[each.setting]
            distributions = distributions.cut(each, value, self.sampling.filtered_score)
        return distributions

    def _keep_q(self, drafter: Distributions, q: Tensor) -> None:
        """Store q [1, vocab or width] at the step."""
        q = drafter.over_all_ids(q, self.sampling.vocab)
        self.sampling.q.index_copy_(0, self.sampling.step, q)


class RejectionRule(FilteredRule):
    """Speculative sampling (Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2).

    Draft x is accepted if u·q(x) < p(x) and all drafts before it are accepted. The token after them is drawn
    from the residual after a rejection, else from p. The draws for drafting, acceptance and the token are
    independent.
    """

    def draft(self, logits: Tensor) -> Tensor:
        """See Rule.draft."""
        buffers, drafter = self.sampling, self._drafter(logits)
        uniform = buffers.inputs.draft_uniforms.index_select(0, buffers.step)
        index, total = draw(drafter.weights[0], uniform)
        self._keep_q(drafter, drafter.weights / total)
        return self._keep(drafter.ids_at(index))

    def _verify(self, target: Distributions) -> Tensor:
        inputs, gamma = self.sampling.inputs, target.rows - 1
        p = target.probs
        if gamma == 0:
            index, _ = draw(p[0], inputs.residual_uniforms[:1])
            return packed([target.ids_at(index)], [p[0].gather(0, index), *target.overflows])
        drafts, q = self.sampling.drafts[:gamma], self.sampling.q
        p_drafts, q_drafts = target.entries(p, drafts), q[:gamma].gather(-1, drafts[:, None])[:, 0]
        accepted = count_accepted(inputs.accept_uniforms[:gamma] * q_drafts < p_drafts)
        # A row of zeros after q makes the bonus a special case of the residual, without a branch on the host.
        q[gamma].zero_()
        p_next, q_next = p.index_select(0, accepted)[0], q.index_select(0, accepted)[0]
        ids = None if target.ids is None else target.ids.index_select(0, accepted)[0]
        if ids is not None:
            q_next = q_next.gather(0, ids)
        index, _ = draw(residual(p_next, q_next), inputs.residual_uniforms.index_select(0, accepted))
        token = index if ids is None else ids.gather(0, index)
        probs = [p_next.gather(0, index), p_drafts, q_next.gather(0, index), q_drafts]
        return packed([token, accepted, drafts], [*probs, *target.overflows])

    def _decoded(self, outcome: Tensor, gamma: int) -> _Decoded:
        ints, floats = unpacked(outcome, gamma + 2 if gamma else 1)
        token, accepted, *drafts = ints if gamma else [*ints, 0]
        p, rest = floats[: gamma + 1], floats[gamma + 1 :]
        q, overflows = (rest[: gamma + 1], rest[gamma + 1 :]) if gamma else ([], rest)
        verdict = Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=p[1:],
            drafter_probs=q[1:],
            token_target_prob=p[0],
            token_drafter_prob=q[0] if accepted < gamma else None,
        )
        return _Decoded(verdict, any(weight > 0 for weight in overflows))


class CoupledRule(FilteredRule):
    """Gumbel-max in both models with the same noise, keyed by position."""

    def draft(self, logits: Tensor) -> Tensor:
        """See Rule.draft."""
        buffers, drafter = self.sampling, self._drafter(logits)
        noise = buffers.gumbel.index_select(0, buffers.step)
        self._keep_q(drafter, drafter.probs)
        return self._keep(drafter.ids_at(drafter.best(noise, buffers.filtered_score)))

    def _verify(self, target: Distributions) -> Tensor:
        buffers, gamma = self.sampling, target.rows - 1
        index = target.best(buffers.gumbel[: gamma + 1], buffers.filtered_score)
        choices, drafts = target.ids_at(index), buffers.drafts[:gamma]
        p = target.probs
        probs = [p.gather(-1, index[:, None])[:, 0]]
        if gamma:
            # [gamma, 2]: q of the target's choice, and of the draft
            q = buffers.q[:gamma].gather(-1, torch.stack([choices[:-1], drafts], -1))
            probs += [target.entries(p, drafts), q.flatten()]
        return packed([choices, drafts], [*probs, *target.overflows])

    def _decoded(self, outcome: Tensor, gamma: int) -> _Decoded:
        ints, floats = unpacked(outcome, 2 * gamma + 1)
        choices, drafts = ints[: gamma + 1], ints[gamma + 1 :]
        p_choices, p_drafts = floats[: gamma + 1], floats[gamma + 1 : 2 * gamma + 1]
        q, overflows = floats[2 * gamma + 1 : 4 * gamma + 1], floats[4 * gamma + 1 :]
        accepted, token = walk_match(choices, drafts)
        verdict = Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=p_drafts,
            drafter_probs=q[1::2],
            token_target_prob=p_choices[accepted],
            token_drafter_prob=q[2 * accepted] if accepted < gamma else None,
        )
        return _Decoded(verdict, any(weight > 0 for weight in overflows))


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A verdict, which is wrong if `overflows`: a row of the target may keep more than was looked at."""

    verdict: Verdict
    overflows: bool
