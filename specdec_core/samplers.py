"""How a round draws its drafts and verifies them, one class for each way: greedy, rejection, coupled.

A sampler lives for one answer. It sees logits and ids, never a model, and brings a round's outcome to the
host in one transfer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from .sampling import KeyedNoise, SamplingParams, draw, filtered_logits
from .settings import Settings
from .verification import gather_rows, verify_match, verify_rejection


@dataclass(frozen=True, slots=True)
class Draft:
    """`ids` [gamma] int64; `q` [gamma, vocab] is what each was drawn from, None where it is one-hot."""

    ids: Tensor
    q: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A round's outcome on the host. The first `accepted` of `drafts` stand, then comes `token`.

    `target_probs` and `drafter_probs` are p and q of each draft, the `token_` ones those of `token`; q is
    None after a round in which every draft stood, where no drafter spoke of that position.
    """

    drafts: list[int]
    accepted: int
    token: int
    target_probs: list[float]
    drafter_probs: list[float]
    token_target_prob: float
    token_drafter_prob: float | None

    def cut_to(self, drafts: int) -> Verdict:
        """The same outcome with nothing after the first `drafts` drafts, all of which stand."""
        return replace(
            self,
            drafts=self.drafts[:drafts],
            accepted=drafts,
            target_probs=self.target_probs[:drafts],
            drafter_probs=self.drafter_probs[:drafts],
        )


class Sampler(Protocol):
    def start_round(self, position: int, gamma: int) -> None:
        """Prepares the noise for the tokens at `position` to `position + gamma`, absolute in the context."""

    def draft(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor | None]:
        """The drafter's logits [1, vocab] at draft `step` → its token [1] and q [1, vocab]."""

    def verify(self, logits: Tensor, draft: Draft) -> Verdict:
        """The target's logits [gamma + 1, vocab] → what stands. The round's one wait for the device."""


def sampler_for(settings: Settings, noise: KeyedNoise) -> Sampler:
    params = SamplingParams.from_settings(settings)
    if params.greedy:
        return GreedySampler()
    if settings.verification == "coupled":
        return CoupledSampler(params, noise)
    return RejectionSampler(params, noise)


class GreedySampler:
    """Temperature 0: both models take the argmax, p and q are one-hot, no noise is needed."""

    def start_round(self, position: int, gamma: int) -> None:
        pass

    def draft(self, logits: Tensor, step: int) -> tuple[Tensor, None]:
        return logits.argmax(-1), None

    def verify(self, logits: Tensor, draft: Draft) -> Verdict:
        choices = logits.argmax(-1)
        host = torch.cat([draft.ids, choices]).tolist()
        gamma = draft.ids.shape[0]
        drafts, wanted = host[:gamma], host[gamma:]
        accepted = next((i for i in range(gamma) if drafts[i] != wanted[i]), gamma)
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=wanted[accepted],
            target_probs=[float(d == w) for d, w in zip(drafts, wanted, strict=False)],
            drafter_probs=[1.0] * gamma,
            token_target_prob=1.0,
            token_drafter_prob=0.0 if accepted < gamma else None,
        )


class RejectionSampler:
    """Speculative sampling with independent keyed draws for drafting, accepting and the residual."""

    def __init__(self, params: SamplingParams, noise: KeyedNoise) -> None:
        self.params = params
        self.noise = noise

    def start_round(self, position: int, gamma: int) -> None:
        drafted = range(position, position + gamma)
        self._draft_uniforms = self.noise.uniforms(drafted, "draft")
        self._accept_uniforms = self.noise.uniforms(drafted, "accept")
        self._residual_uniforms = self.noise.uniforms(range(position, position + gamma + 1), "residual")

    def draft(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        q = filtered_logits(logits, self.params).softmax(-1)
        return draw(q[0], self._draft_uniforms[step : step + 1]), q

    def verify(self, logits: Tensor, draft: Draft) -> Verdict:
        p = filtered_logits(logits, self.params).softmax(-1)
        gamma = draft.ids.shape[0]
        q = draft.q
        if q is None:
            q = torch.nn.functional.one_hot(draft.ids, p.shape[-1]).to(p.dtype)
        accepted, token = verify_rejection(
            p, q, draft.ids, self._accept_uniforms[:gamma], self._residual_uniforms[: gamma + 1]
        )
        return _to_host(draft.ids, accepted, token, p, q)


class CoupledSampler:
    """Both models take the argmax of log probability plus the same Gumbel noise, keyed by position.

    The draw is exact (Gumbel-max), and the same whatever was drafted, so a seed gives the baseline's text.
    """

    def __init__(self, params: SamplingParams, noise: KeyedNoise) -> None:
        self.params = params
        self.noise = noise

    def start_round(self, position: int, gamma: int) -> None:
        self._positions = range(position, position + gamma + 1)
        self._gumbel: Tensor | None = None

    def draft(self, logits: Tensor, step: int) -> tuple[Tensor, Tensor]:
        filtered = filtered_logits(logits, self.params)
        noise = self._noise(logits.shape[-1])[step : step + 1]
        return (filtered + noise).argmax(-1), filtered.softmax(-1)

    def verify(self, logits: Tensor, draft: Draft) -> Verdict:
        filtered = filtered_logits(logits, self.params)
        choices = (filtered + self._noise(logits.shape[-1])[: logits.shape[0]]).argmax(-1)
        accepted, token = verify_match(choices, draft.ids)
        return _to_host(draft.ids, accepted, token, filtered.softmax(-1), draft.q)

    def _noise(self, vocab: int) -> Tensor:
        if self._gumbel is None:
            self._gumbel = self.noise.gumbel(self._positions, vocab)
        return self._gumbel


def _to_host(drafts: Tensor, accepted: Tensor, token: Tensor, p: Tensor, q: Tensor | None) -> Verdict:
    """Gathers the probabilities that the trace shows and waits for the device once."""
    gamma = drafts.shape[0]
    parts = [drafts, accepted, token, gather_rows(p, drafts), p.index_select(0, accepted)[0][token]]
    if q is not None and gamma:
        parts += [gather_rows(q, drafts), q.index_select(0, accepted.clamp(max=gamma - 1))[0][token]]
    host = torch.cat([part.double() for part in parts]).tolist()
    ids, (stood, chosen), probs = host[:gamma], host[gamma : gamma + 2], host[gamma + 2 :]
    one_hot = len(probs) == gamma + 1
    return Verdict(
        drafts=[int(i) for i in ids],
        accepted=int(stood),
        token=int(chosen),
        target_probs=probs[:gamma],
        drafter_probs=[1.0] * gamma if one_hot else probs[gamma + 1 : -1],
        token_target_prob=probs[gamma],
        token_drafter_prob=None if stood == gamma else 0.0 if one_hot else probs[-1],
    )
