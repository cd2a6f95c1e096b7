"""Sampling on a device, in buffers that never move: what a CUDA graph can capture with the forward.

A rule's `draft` and `verify` have fixed shapes, read every setting, all noise and the step from the buffers,
never wait for the host, and leave the same behind however often they run. They exist once for a pair, so that
a graph that holds one serves every answer; an answer's DeviceSampler fills the buffers and reads the outcome.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..settings import MAX_GAMMA, Verification
from .base import Verdict
from .filters import SamplingParams
from .noise import KeyedNoise, draw
from .verification import gather_rows, verify_match, verify_rejection


class DeviceSampling:
    """The buffers of one pair, and the rules over them. One round at a time uses them."""

    def __init__(self, device: torch.device, vocab: int) -> None:
        rows = MAX_GAMMA + 1
        self.device = device
        self.vocab = vocab
        self._rules: dict[tuple[type[_Rule], bool], _Rule] = {}
        self.ids = torch.zeros(rows, dtype=torch.int64, device=device)
        """The last id of the context, then the drafts."""
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self.q = torch.zeros(MAX_GAMMA, vocab, device=device)
        self.draft_uniforms, self.accept_uniforms, self.residual_uniforms = self.uniforms = torch.zeros(
            3, rows, dtype=torch.float64, device=device
        )
        self.temperature, self.top_k, self.top_p, self.min_p = self.params = torch.zeros(
            4, 1, dtype=torch.float64, device=device
        )

    @cached_property
    def gumbel(self) -> Tensor:
        """[rows, vocab], held from the first coupled answer on."""
        return torch.zeros(MAX_GAMMA + 1, self.vocab, device=self.device)

    def rule(self, kind: type[_Rule], filtered: bool) -> _Rule:
        """Always the same one, so that graphs that hold it are found again."""
        if (kind, filtered) not in self._rules:
            self._rules[kind, filtered] = kind(self, filtered)
        return self._rules[kind, filtered]

    def upload(self, buffer: Tensor, values: Sequence) -> None:
        """Values into a buffer of the same shape, without waiting for the device."""
        host = torch.tensor(values, dtype=buffer.dtype)
        buffer.copy_(host.pin_memory() if self.device.type == "cuda" else host, non_blocking=True)

    def filtered_logits(self, logits: Tensor, filtered: bool) -> Tensor:
        """`sampling.filtered_logits`, settings on the device. With `filtered` the vocabulary is sorted
        and every filter computed; one that is off changes nothing.
        """
        logits = logits.float() * (1 / self.temperature).float()
        if not filtered:
            return logits
        last = logits.shape[-1] - 1
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        # Not torch.where: a number among its arguments may be copied from the host, which no graph can hold.
        kept = (self.top_k - 1).masked_fill(self.top_k <= 0, last).clamp(max=last).long()
        threshold = ordered.index_select(-1, kept)
        logits = logits.masked_fill(logits < threshold, -torch.inf)
        probs = ordered.masked_fill(ordered < threshold, -torch.inf).softmax(-1)
        drop = (probs.cumsum(-1) - probs >= self.top_p) & (self.top_p < 1)
        drop[..., :1] = False
        logits = logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)
        probs = logits.softmax(-1)
        return logits.masked_fill(probs < self.min_p * probs.amax(-1, keepdim=True), -torch.inf)


class _Rule(ABC):
    def __init__(self, sampling: DeviceSampling, filtered: bool) -> None:
        self.sampling = sampling
        self.filtered = filtered

    @abstractmethod
    def draft(self, logits: Tensor) -> Tensor:
        """The drafter's logits [1, vocab] → its token [1], kept with its q at the step."""

    @abstractmethod
    def verify(self, logits: Tensor) -> Tensor:
        """The target's logits [gamma + 1, vocab] → float64 [4 + 3 * gamma], for `DeviceSampler.read`."""

    def _filtered(self, logits: Tensor) -> Tensor:
        return self.sampling.filtered_logits(logits, self.filtered)

    def _keep(self, token: Tensor, q: Tensor | None) -> Tensor:
        held = self.sampling
        held.ids.index_copy_(0, held.step + 1, token)
        if q is not None:
            held.q.index_copy_(0, held.step, q)
        return token

    def _outcome(self, accepted: Tensor, token: Tensor, p: Tensor) -> Tensor:
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
    def draft(self, logits: Tensor) -> Tensor:
        return self._keep(logits.argmax(-1), None)

    def verify(self, logits: Tensor) -> Tensor:
        choices = logits.argmax(-1)
        drafts = self.sampling.ids[1 : logits.shape[0]]
        accepted, token = verify_match(choices, drafts)
        one, stand = torch.ones_like(token), choices[:-1] == drafts
        parts = [accepted, token, one, torch.zeros_like(token), stand, torch.ones_like(drafts), drafts]
        return torch.cat([part.double() for part in parts])


class RejectionRule(_Rule):
    def draft(self, logits: Tensor) -> Tensor:
        held = self.sampling
        q = self._filtered(logits).softmax(-1)
        return self._keep(draw(q[0], held.draft_uniforms.index_select(0, held.step)), q)

    def verify(self, logits: Tensor) -> Tensor:
        held, rows = self.sampling, logits.shape[0]
        p = self._filtered(logits).softmax(-1)
        accepted, token = verify_rejection(
            p,
            held.q[: rows - 1],
            held.ids[1:rows],
            held.accept_uniforms[: rows - 1],
            held.residual_uniforms[:rows],
        )
        return self._outcome(accepted, token, p)


class CoupledRule(_Rule):
    def draft(self, logits: Tensor) -> Tensor:
        filtered = self._filtered(logits)
        noise = self.sampling.gumbel.index_select(0, self.sampling.step)
        return self._keep((filtered + noise).argmax(-1), filtered.softmax(-1))

    def verify(self, logits: Tensor) -> Tensor:
        rows = logits.shape[0]
        filtered = self._filtered(logits)
        choices = (filtered + self.sampling.gumbel[:rows]).argmax(-1)
        accepted, token = verify_match(choices, self.sampling.ids[1:rows])
        return self._outcome(accepted, token, filtered.softmax(-1))


class DeviceSampler:
    """One answer's use of the buffers. Rounds of other answers may come in between."""

    def __init__(
        self, sampling: DeviceSampling, params: SamplingParams, verification: Verification, noise: KeyedNoise
    ) -> None:
        kind = GreedyRule if params.greedy else CoupledRule if verification == "coupled" else RejectionRule
        self._sampling = sampling
        self._params = [[params.temperature], [params.top_k], [params.top_p], [params.min_p]]
        filters = params.top_k > 0 or params.top_p < 1 or params.min_p > 0
        # An unfiltered rule is one of its own, so that it does not pay for the filters' sort.
        self._rule = sampling.rule(kind, filters and not params.greedy)
        self._noise = noise
        self._count = 0

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        held, positions = self._sampling, range(len(context), len(context) + gamma + 1)
        self._count = 0
        held.upload(held.ids[:1], context[-1:])
        if isinstance(self._rule, GreedyRule):
            return
        held.upload(held.params, self._params)
        if isinstance(self._rule, CoupledRule):
            held.gumbel[: gamma + 1] = self._noise.gumbel(positions, held.vocab)
        else:
            streams = self._noise.uniforms(positions)
            held.upload(held.uniforms[:, : gamma + 1], [streams.draft, streams.accept, streams.residual])

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        self._sampling.step.fill_(step)
        self._count = step + 1
        return self._rule.draft

    def take(self, ids: Sequence[int]) -> None:
        held, self._count = self._sampling, len(ids)
        if ids:
            drafts = held.ids[1 : 1 + len(ids)]
            held.upload(drafts, ids)
            if not isinstance(self._rule, GreedyRule):
                held.q[: len(ids)] = 0
                held.q.scatter_(1, drafts[:, None], 1.0)

    @property
    def rows(self) -> Tensor:
        return self._sampling.ids[: 1 + self._count]

    @property
    def verify(self) -> Callable[[Tensor], Tensor]:
        return self._rule.verify

    def read(self, outcome: Tensor) -> Verdict:
        accepted, token, token_p, token_q, *rest = outcome.tolist()
        gamma = len(rest) // 3
        return Verdict(
            drafts=[int(draft) for draft in rest[2 * gamma :]],
            accepted=int(accepted),
            token=int(token),
            target_probs=rest[:gamma],
            drafter_probs=rest[gamma : 2 * gamma],
            token_target_prob=token_p,
            token_drafter_prob=token_q if accepted < gamma else None,
        )
