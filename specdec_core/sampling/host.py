"""Sampling on the host (CPU), over numpy views of the logits.

Nothing has to be synchronized here, so a round verifies its drafts one by one and computes only the residual
that it draws from. After a forward the CPU caches are cold, which makes an operation here five times slower
than in a loop of its own: the number of operations matters more than their speed. The results equal
those of the tensor functions in `verification` up to rounding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from .alternatives import Likeliest, likeliest_on_host, one_hot
from .base import Verdict, count_to_end
from .filters import SamplingParams, adjusted, filtered_logits
from .history import History, Tally, drafts_before
from .host_rows import HostRow, host_rows
from .noise import KeyedNoise, Uniforms
from .verification import walk_match, walk_rejection


class _HostSampler(ABC):
    """Base of the samplers on the host: a round's drafts and, unless one-hot, the q of each.

    Verdicts have the `alternatives` likeliest tokens of each position, none for 0.
    """

    def __init__(self, params: SamplingParams, eos_ids: Collection[int] = (), alternatives: int = 0) -> None:
        self.params = params
        self._eos_ids = eos_ids
        self._alternatives = alternatives
        self._fed = torch.zeros(1, dtype=torch.int64)
        self._fed_on_host = self._fed.numpy()
        self._tally: Tally | None = None

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        self._context = context
        self._last = context[-1]
        self._drafts: list[int] = []
        self._drafter_probs: list[float] = []
        self._q: list[HostRow] = []

    def draft(self, step: int) -> Callable[[Tensor], Tensor]:
        """See Sampler.draft."""
        return self._draft

    @abstractmethod
    def _draft(self, logits: Tensor) -> Tensor:
        """Draw and store a draft: the drafter's logits [1, vocab] → its id [1]."""

    @abstractmethod
    def verify(self, logits: Tensor) -> Verdict:
        """See Sampler.verify: the target's logits [1 + drafts, vocab] → the round's outcome."""

    def take(self, ids: Sequence[int]) -> None:
        """See Sampler.take."""
        self._drafts = list(ids[: count_to_end(ids, self._eos_ids)])
        self._drafter_probs = [1.0] * len(self._drafts)

    @property
    def complete(self) -> bool:
        """See Sampler.complete."""
        return self._drafts[-1] in self._eos_ids

    @property
    def rows(self) -> Tensor:
        """See Sampler.rows."""
        return torch.from_numpy(np.array([self._last, *self._drafts]))

    def read(self, outcome: Verdict) -> Verdict:
        """See Sampler.read."""
        return outcome

    def _keep(self, draft: int, prob: float) -> Tensor:
        """Store a draft and q of it. Returns its id [1] in a tensor that the next draft overwrites."""
        self._drafts.append(draft)
        self._drafter_probs.append(prob)
        self._fed_on_host[0] = draft
        return self._fed

    def _history(self, logits: Tensor) -> History | None:
        """The history of the rows of logits [rows, vocab], the last of which follows all stored drafts."""
        if not self.params.reads_history:
            return None
        rows, vocab = logits.shape
        if self._tally is None:
            self._tally = Tally(vocab)
        self._tally.update(self._context)
        drafts = torch.tensor(self._drafts, dtype=torch.int64)
        before = drafts_before(len(drafts) + 1, len(drafts))[-rows:]
        return History.of_known(self._tally.counts, drafts, before)

    def _likeliest(self, p: Sequence[HostRow]) -> list[Likeliest] | None:
        """The alternatives, if they are wanted."""
        if not self._alternatives:
            return None
        target = _stacked(p)
        drafter = _stacked(self._q) if self._q else one_hot(self._drafts, target.shape[-1])
        return likeliest_on_host(target, drafter, self._alternatives)

    def _verdict(self, accepted: int, token: int, p: Sequence[HostRow]) -> Verdict:
        """Build a Verdict from p, gamma + 1 rows, and the stored drafts."""
        drafts, gamma = self._drafts, len(self._drafts)
        token_q = None
        if accepted < gamma:
            token_q = float(self._q[accepted].probs[token]) if self._q else 0.0
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=[float(row.probs[draft]) for row, draft in zip(p, drafts, strict=False)],
            drafter_probs=self._drafter_probs,
            token_target_prob=float(p[accepted].probs[token]),
            token_drafter_prob=token_q,
            alternatives=self._likeliest(p),
        )


class GreedySampler(_HostSampler):
    """Temperature 0: both models take the argmax, so p and q are one-hot. Alternatives have the
    probabilities of temperature 1.
    """

    def _draft(self, logits: Tensor) -> Tensor:
        scores = adjusted(logits, self.params, self._history(logits))
        (draft,), (prob,) = self._choices(scores)
        if self._alternatives:
            self._q += _softmax(scores)
        return self._keep(draft, prob)

    def verify(self, logits: Tensor) -> Verdict:
        """See Sampler.verify."""
        drafts = self._drafts
        scores = adjusted(logits, self.params, self._history(logits))
        choices, probs = self._choices(scores)
        accepted, token = walk_match(choices, drafts)
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=[p * (x == y) for x, y, p in zip(drafts, choices, probs, strict=False)],
            drafter_probs=self._drafter_probs,
            token_target_prob=probs[accepted],
            token_drafter_prob=0.0 if accepted < len(drafts) else None,
            alternatives=self._likeliest(_softmax(scores)) if self._alternatives else None,
        )

    def _choices(self, logits: Tensor) -> tuple[list[int], list[float]]:
        """The argmax of each row, and its probability: 1, or NaN if the row is not finite."""
        scores = logits.numpy()
        choices = scores.argmax(-1).tolist()  # which takes NaN for the maximum
        best = [float(row[choice]) for row, choice in zip(scores, choices, strict=True)]
        return choices, [1.0 if math.isfinite(score) else math.nan for score in best]


class _NoiseSampler(_HostSampler):
    """Base of the samplers that draw with keyed noise."""

    def __init__(
        self,
        params: SamplingParams,
        noise: KeyedNoise,
        eos_ids: Collection[int] = (),
        alternatives: int = 0,
    ) -> None:
        super().__init__(params, eos_ids, alternatives)
        self.noise = noise


class RejectionSampler(_NoiseSampler):
    """Speculative sampling with independent keyed draws for drafting, acceptance and the residual."""

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        super().start_round(context, gamma)
        position = len(context)
        self.uniforms: Uniforms = self.noise.uniforms(range(position, position + gamma + 1))

    def _draft(self, logits: Tensor) -> Tensor:
        step = len(self._drafts)
        (q,) = host_rows(logits, self.params, self._history(logits))
        self._q.append(q)
        draft = q.draw(self.uniforms.draft[step])
        return self._keep(draft, float(q.probs[draft]))

    def verify(self, logits: Tensor) -> Verdict:
        """See Sampler.verify."""
        p = host_rows(logits, self.params, self._history(logits))
        accepted, token = walk_rejection(
            p, self._q or None, self._drafts, self.uniforms.accept, self.uniforms.residual
        )
        return self._verdict(accepted, token, p)


class CoupledSampler(_NoiseSampler):
    """Argmax of log probability plus Gumbel noise in both models, with the same noise, keyed by position.

    Gumbel-max draws exactly from p. The draw does not depend on the drafts, so a seed gives the baseline's
    text.
    """

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        super().start_round(context, gamma)
        self._positions = range(len(context), len(context) + gamma + 1)
        self._gumbel: Tensor | None = None

    def _draft(self, logits: Tensor) -> Tensor:
        filtered = filtered_logits(logits, self.params, self._history(logits))
        (choice,) = _argmax(filtered + self._noise(logits.shape[-1])[len(self._drafts)])
        q = HostRow(filtered.softmax(-1).numpy()[0])
        self._q.append(q)
        return self._keep(choice, float(q.probs[choice]))

    def verify(self, logits: Tensor) -> Verdict:
        """See Sampler.verify."""
        filtered = filtered_logits(logits, self.params, self._history(logits))
        choices = _argmax(filtered + self._noise(logits.shape[-1])[: logits.shape[0]])
        accepted, token = walk_match(choices, self._drafts)
        return self._verdict(accepted, token, [HostRow(row) for row in filtered.softmax(-1).numpy()])

    def _noise(self, vocab: int) -> Tensor:
        if self._gumbel is None:
            self._gumbel = self.noise.gumbel(self._positions, vocab)
        return self._gumbel


def _softmax(scores: Tensor) -> list[HostRow]:
    return [HostRow(row) for row in scores.softmax(-1).numpy()]


def _stacked(rows: Sequence[HostRow]) -> Tensor:
    """The probabilities of rows [rows, vocab], float32."""
    return torch.from_numpy(np.stack([row.probs for row in rows]))


def _argmax(scores: Tensor) -> list[int]:
    """Return the index of the highest score in each row [rows, vocab], the lowest index of equal ones."""
    return scores.float().numpy().argmax(-1).tolist()
