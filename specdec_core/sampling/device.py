"""Sampling on a device, in buffers at fixed addresses, so that a CUDA graph can capture it with the forward.

The `draft` and `verify` of a rule have fixed shapes, read every setting, all noise and the step from the
buffers, never synchronize, and are idempotent. A pair has one instance of each rule, so that a graph captured
with it serves every answer; the DeviceSampler of an answer fills the buffers and reads the outcome.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..settings import MAX_GAMMA, Verification
from .base import Verdict, count_to_end
from .filters import SamplingParams
from .noise import KeyedNoise, draw
from .verification import gather_rows, verify_match, verify_rejection


class DeviceSampling:
    """The sampling buffers of one pair and the rules over them; only one round at a time may use them."""

    def __init__(self, device: torch.device, vocab: int) -> None:
        rows = MAX_GAMMA + 1
        self.device = device
        self.vocab = vocab
        self._rules: dict[tuple[type[_Rule], bool], _Rule] = {}
        self.ids = torch.zeros(rows, dtype=torch.int64, device=device)
        """The last id of the context, then the drafts [MAX_GAMMA + 1]."""
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self.q = torch.zeros(MAX_GAMMA, vocab, device=device)
        self.best = torch.zeros(MAX_GAMMA, device=device)
        """The best logit of each greedy draft [MAX_GAMMA], which tells whether its row is finite."""
        self.draft_uniforms, self.accept_uniforms, self.residual_uniforms = self.uniforms = torch.zeros(
            3, rows, dtype=torch.float64, device=device
        )
        self.temperature, self.top_k, self.top_p, self.min_p = self.params = torch.zeros(
            4, 1, dtype=torch.float64, device=device
        )

    @cached_property
    def gumbel(self) -> Tensor:
        """Gumbel noise [MAX_GAMMA + 1, vocab], float32, allocated for the first coupled answer."""
        return torch.zeros(MAX_GAMMA + 1, self.vocab, device=self.device)

    def rule(self, kind: type[_Rule], filtered: bool) -> _Rule:
        """Return the pair's one instance of a rule, so that graphs captured with it are reused."""
        if (kind, filtered) not in self._rules:
            self._rules[kind, filtered] = kind(self, filtered)
        return self._rules[kind, filtered]

    def upload(self, buffer: Tensor, values: Sequence) -> None:
        """Copy values into a buffer of the same shape without synchronizing (on CUDA from pinned memory)."""
        host = torch.tensor(values, dtype=buffer.dtype)
        buffer.copy_(host.pin_memory() if self.device.type == "cuda" else host, non_blocking=True)

    def filtered_logits(self, logits: Tensor, filtered: bool) -> Tensor:
        """`filters.filtered_logits` with the settings read from the buffers: logits [rows, vocab] → float32.

        With `filtered` the vocabulary is sorted and every filter is computed; one that is off changes
        nothing. Without it, only the temperature is applied.
        """
        logits = logits.float() * (1 / self.temperature).float()
        if not filtered:
            return logits
        last = logits.shape[-1] - 1
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        # Not torch.where: it may copy a scalar argument from the host, which cannot be captured.
        last_kept = (self.top_k - 1).masked_fill(self.top_k <= 0, last).clamp(max=last).long()
        threshold = ordered.index_select(-1, last_kept)
        logits = logits.masked_fill(logits < threshold, -torch.inf)
        probs = ordered.masked_fill(ordered < threshold, -torch.inf).softmax(-1)
        drop = (probs.cumsum(-1) - probs >= self.top_p) & (self.top_p < 1)
        drop[..., :1] = False
        logits = logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)
        probs = logits.softmax(-1)
        return logits.masked_fill(probs < self.min_p * probs.amax(-1, keepdim=True), -torch.inf)


class _Rule(ABC):
    """Drafting and verification over the buffers of a pair, by one rule."""

    def __init__(self, sampling: DeviceSampling, filtered: bool) -> None:
        self.sampling = sampling
        self.filtered = filtered

    @abstractmethod
    def draft(self, logits: Tensor) -> Tensor:
        """Draw a draft from the drafter's logits [1, vocab]; store it and its q [1, vocab] at the step.

        Returns its id [1], int64.
        """

    @abstractmethod
    def verify(self, logits: Tensor) -> Tensor:
        """Verify the drafts with the target's logits [gamma + 1, vocab].

        Returns the outcome as float64 [4 + 3 * gamma], which `DeviceSampler.read` decodes.
        """

    def _filtered(self, logits: Tensor) -> Tensor:
        return self.sampling.filtered_logits(logits, self.filtered)

    def _keep(self, token: Tensor, q: Tensor | None) -> Tensor:
        """Store a draft [1], and its q [1, vocab] unless that is one-hot, at the step. Returns the draft."""
        buffers = self.sampling
        buffers.ids.index_copy_(0, buffers.step + 1, token)
        if q is not None:
            buffers.q.index_copy_(0, buffers.step, q)
        return token

    def _outcome(self, accepted: Tensor, token: Tensor, p: Tensor) -> Tensor:
        """Pack accepted [1], token [1] and all p and q that a Verdict holds into float64 [4 + 3 * gamma]."""
        gamma = p.shape[0] - 1
        drafts, q = self.sampling.ids[1 : gamma + 1], self.sampling.q[:gamma]
        parts = [accepted, token, p.index_select(0, accepted).index_select(1, token)[0]]
        if gamma:
            at = accepted.clamp(max=gamma - 1)
            parts += [q.index_select(0, at).index_select(1, token)[0]]
            parts += [gather_rows(p, drafts), gather_rows(q, drafts)]
        else:
            parts.append(torch.zeros_like(parts[-1]))
        return torch.cat([part.double() for part in [*parts, drafts]])


class GreedyRule(_Rule):
    """Temperature 0: both models take the argmax, so p and q are one-hot."""

    def draft(self, logits: Tensor) -> Tensor:
        """See _Rule.draft."""
        best, choice = logits.max(-1)
        self.sampling.best.index_copy_(0, self.sampling.step, best.float())
        return self._keep(choice, None)

    def verify(self, logits: Tensor) -> Tensor:
        """See _Rule.verify."""
        best, choices = logits.max(-1)
        drafts = self.sampling.ids[1 : logits.shape[0]]
        accepted, token = verify_match(choices, drafts)
        target_prob, drafter_prob = _certain(best), _certain(self.sampling.best[: drafts.shape[0]])
        parts = [accepted, token, target_prob.index_select(0, accepted), torch.zeros_like(token)]
        parts += [target_prob[:-1] * (choices[:-1] == drafts), drafter_prob, drafts]
        return torch.cat([part.double() for part in parts])


def _certain(best: Tensor) -> Tensor:
    """1 for each of the best logits [rows], NaN for one that is not finite."""
    return best.double() * 0 + 1


class RejectionRule(_Rule):
    """Speculative sampling with independent draws for drafting, acceptance and the residual."""

    def draft(self, logits: Tensor) -> Tensor:
        """See _Rule.draft."""
        buffers = self.sampling
        q = self._filtered(logits).softmax(-1)
        return self._keep(draw(q[0], buffers.draft_uniforms.index_select(0, buffers.step)), q)

    def verify(self, logits: Tensor) -> Tensor:
        """See _Rule.verify."""
        buffers, rows = self.sampling, logits.shape[0]
        p = self._filtered(logits).softmax(-1)
        accepted, token = verify_rejection(
            p,
            buffers.q[: rows - 1],
            buffers.ids[1:rows],
            buffers.accept_uniforms[: rows - 1],
            buffers.residual_uniforms[:rows],
        )
        return self._outcome(accepted, token, p)


class CoupledRule(_Rule):
    """Gumbel-max in both models with the same noise, keyed by position."""

    def draft(self, logits: Tensor) -> Tensor:
        """See _Rule.draft."""
        filtered = self._filtered(logits)
        noise = self.sampling.gumbel.index_select(0, self.sampling.step)
        return self._keep((filtered + noise).argmax(-1), filtered.softmax(-1))

    def verify(self, logits: Tensor) -> Tensor:
        """See _Rule.verify."""
        rows = logits.shape[0]
        filtered = self._filtered(logits)
        choices = (filtered + self.sampling.gumbel[:rows]).argmax(-1)
        accepted, token = verify_match(choices, self.sampling.ids[1:rows])
        return self._outcome(accepted, token, filtered.softmax(-1))


class DeviceSampler:
    """The Sampler of one answer, over its pair's buffers. Rounds of other answers may come in between."""

    def __init__(
        self,
        sampling: DeviceSampling,
        params: SamplingParams,
        verification: Verification,
        noise: KeyedNoise,
        eos_ids: Collection[int] = (),
    ) -> None:
        kind = GreedyRule if params.greedy else CoupledRule if verification == "coupled" else RejectionRule
        self._sampling = sampling
        self._params = [[params.temperature], [params.top_k], [params.top_p], [params.min_p]]
        filters = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        # The unfiltered rule is a separate instance, which does without the sort that the filters need.
        self._rule = sampling.rule(kind, filters and not params.greedy)
        self._noise = noise
        self._eos_ids = eos_ids
        self._count = 0

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        buffers, positions = self._sampling, range(len(context), len(context) + gamma + 1)
        self._count = 0
        buffers.upload(buffers.ids[:1], context[-1:])
        if isinstance(self._rule, GreedyRule):
            return
        buffers.upload(buffers.params, self._params)
        if isinstance(self._rule, CoupledRule):
            buffers.gumbel[: gamma + 1] = self._noise.gumbel(positions, buffers.vocab)
        else:
            streams = self._noise.uniforms(positions)
            rows = [streams.draft, streams.accept, streams.residual]
            buffers.upload(buffers.uniforms[:, : gamma + 1], rows)

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        """See Sampler.draft."""
        self._sampling.step.fill_(step)
        self._count = step + 1
        return self._rule.draft

    def take(self, ids: Sequence[int]) -> None:
        """See Sampler.take."""
        buffers = self._sampling
        self._count = count = count_to_end(ids, self._eos_ids)
        if not count:
            return
        drafts = buffers.ids[1 : 1 + count]
        buffers.upload(drafts, ids[:count])
        if isinstance(self._rule, GreedyRule):
            buffers.best[:count] = 0
        else:
            buffers.q[:count] = 0
            buffers.q.scatter_(1, drafts[:, None], 1.0)

    complete = False
    """See Sampler.complete: the drafts are on the device."""

    @property
    def rows(self) -> Tensor:
        """See Sampler.rows."""
        return self._sampling.ids[: 1 + self._count]

    @property
    def verify(self) -> Callable[[Tensor], Tensor]:
        """See Sampler.verify. The rule's own method, which a graph of an earlier answer may have captured."""
        return self._rule.verify

    def read(self, outcome: Tensor) -> Verdict:
        """See Sampler.read."""
        accepted, token, token_p, token_q, *rest = outcome.tolist()
        gamma = len(rest) // 3
        drafts = [int(draft) for draft in rest[2 * gamma :]]
        verdict = Verdict(
            drafts=drafts,
            accepted=int(accepted),
            token=int(token),
            target_probs=rest[:gamma],
            drafter_probs=rest[gamma : 2 * gamma],
            token_target_prob=token_p,
            token_drafter_prob=token_q if accepted < gamma else None,
        )
        end = count_to_end(drafts, self._eos_ids)
        return verdict.cut_to(end) if end < gamma else verdict
