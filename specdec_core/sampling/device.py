"""Sampling on a device, in buffers at fixed addresses, so that a CUDA graph can capture it with the forward.

A pair has one instance of each rule, so that a graph captured with it serves every answer; the DeviceSampler
of an answer fills the buffers and reads the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ..settings import MAX_GAMMA, Verification
from .base import Verdict, count_to_end
from .device_filters import DEFAULT_WIDTH, FilterPlan, RoundInputs, filter_plan
from .device_rules import CoupledRule, GreedyRule, RejectionRule, Rule
from .filters import SamplingParams, summed_bias
from .history import Tally, drafts_before
from .noise import KeyedNoise


class DeviceSampling:
    """The sampling buffers of one pair and the rules over them; only one round at a time may use them.

    Filters look at the best `width` ids of a row first.
    """

    def __init__(self, device: torch.device, vocab: int, width: int = DEFAULT_WIDTH) -> None:
        self.device = device
        self.vocab = vocab
        self.width = width
        self._rules: dict[tuple[type[Rule], FilterPlan], Rule] = {}
        self.inputs = RoundInputs.on(device)
        self.ids = self.inputs.ids
        self.drafts = self.ids[1:]
        self.step = torch.zeros(1, dtype=torch.int64, device=device)
        self.q = torch.zeros(MAX_GAMMA + 1, vocab, device=device)
        """q of each draft, then a row for the zeros after the last [MAX_GAMMA + 1, vocab]."""
        self.best = torch.zeros(MAX_GAMMA, device=device)
        """The best logit of each greedy draft [MAX_GAMMA], which tells whether its row is finite."""
        # Not a number in an operation, which may be copied from the host, and that cannot be captured.
        self.filtered_score = torch.full((1,), -torch.inf, device=device)

    @cached_property
    def gumbel(self) -> Tensor:
        """Gumbel noise [MAX_GAMMA + 1, vocab], float32, allocated for the first coupled answer."""
        return torch.zeros(MAX_GAMMA + 1, self.vocab, device=self.device)

    @cached_property
    def scores(self) -> Tensor:
        """The target's logits after the temperature [MAX_GAMMA + 1, vocab], float32, for rows that overflow.
        Allocated for the first answer with top-k or top-p.
        """
        return torch.zeros(MAX_GAMMA + 1, self.vocab, device=self.device)

    @cached_property
    def counts(self) -> Tensor:
        """Counts of a Tally [2, vocab], float32, allocated for the first answer with a penalty."""
        return torch.zeros(2, self.vocab, device=self.device)

    @cached_property
    def before(self) -> Tensor:
        """`before` of History.of_rows for a verification of the longest draft [MAX_GAMMA + 1, MAX_GAMMA]."""
        return drafts_before(MAX_GAMMA + 1, MAX_GAMMA, self.device)

    @cached_property
    def bias(self) -> Tensor:
        """The row that is added to all logits [vocab], float32, allocated for the first answer with one."""
        return torch.zeros(self.vocab, device=self.device)

    def rule(self, kind: type[Rule], plan: FilterPlan) -> Rule:
        """Return the pair's one instance of a rule, so that graphs captured with it are reused."""
        if (kind, plan) not in self._rules:
            self._rules[kind, plan] = kind(self, plan)
        return self._rules[kind, plan]

    def upload(self, buffer: Tensor, values: Tensor) -> None:
        """Copy values on the host into a buffer without synchronizing (on CUDA from pinned memory)."""
        buffer.copy_(values.pin_memory() if self.device.type == "cuda" else values, non_blocking=True)


class DeviceSampler:
    """The Sampler of one answer, over its pair's buffers. Rounds of other answers may come in between."""

    def __init__(
        self,
        sampling: DeviceSampling,
        params: SamplingParams,
        verification: Verification,
        noise: KeyedNoise,
        eos_ids: Collection[int] = (),
        alternatives: int = 0,
    ) -> None:
        self._sampling = sampling
        kind = CoupledRule if verification == "coupled" else RejectionRule
        plan = filter_plan(params, sampling.vocab, sampling.width, alternatives > 0)
        self._rule = sampling.rule(GreedyRule if params.greedy else kind, plan)
        # Of this answer alone: other answers' rounds may use the pair's buffers in between.
        self._tally = Tally(sampling.vocab, sampling.device) if plan.penalized else None
        bias = summed_bias(params, sampling.vocab)
        self._bias = None if bias is None else bias.to(sampling.device)
        self._alternatives = alternatives
        self._inputs = RoundInputs.on("cpu")
        self._inputs.set_params(params, sampling.vocab, sampling.width)
        self._ids, self._uniforms = self._inputs.ids.numpy(), self._inputs.uniforms.numpy()
        self._noise = noise
        self._eos_ids = eos_ids
        self._count = 0

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        buffers, positions = self._sampling, range(len(context), len(context) + gamma + 1)
        self._count = 0
        self._ids[0] = context[-1]
        if isinstance(self._rule, RejectionRule):
            streams = self._noise.uniforms(positions)
            self._uniforms[:, : gamma + 1] = streams.draft, streams.accept, streams.residual
        buffers.upload(buffers.inputs.uploaded, self._inputs.uploaded)
        if self._tally is not None:
            self._tally.update(context)
            buffers.counts.copy_(self._tally.counts)
        if self._bias is not None:
            buffers.bias.copy_(self._bias)
        if isinstance(self._rule, CoupledRule):
            buffers.gumbel[: gamma + 1] = self._noise.gumbel(positions, buffers.vocab)

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
        drafts = buffers.drafts[:count]
        buffers.upload(drafts, torch.tensor(ids[:count]))
        if isinstance(self._rule, GreedyRule):
            buffers.best[:count] = 0
        if self._rule.keeps_q:
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
        verdict = self._rule.verdict(outcome, self._count, self._alternatives)
        end = count_to_end(verdict.drafts, self._eos_ids)
        return verdict.cut_to(end) if end < self._count else verdict
