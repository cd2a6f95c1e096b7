"""Speculative sampling without filters on ONNX Runtime: one run of a graph for a draft or a verification.

Never sees a model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..onnx_runtime.logits_function import BoundSession, LogitsFunction
from ..settings import MAX_GAMMA
from .alternatives import Likeliest, likeliest_on_host, one_hot
from .base import Verdict, count_to_end
from .filters import SamplingParams
from .host_rows import HostRow
from .noise import KeyedNoise


class _Buffers:
    """Tensors at addresses that never change, which a round's functions read and write."""

    def __init__(self, temperature: float) -> None:
        self.inverse_temperature = torch.tensor([1 / temperature])
        # Values that the host reads or writes together lie together.
        self.integers = torch.zeros(MAX_GAMMA + 3, dtype=torch.int64)
        self.accepted, self.token = self.integers[:1], self.integers[1:2]
        self.ids = self.integers[2:]
        """The last of the context, then the drafts."""
        self.numbers = torch.zeros(2 * MAX_GAMMA + 2)
        self.token_p, self.token_q = self.numbers[:1], self.numbers[1:2]
        self.q_ids, self.p_ids = self.numbers[2 : MAX_GAMMA + 2], self.numbers[MAX_GAMMA + 2 :]
        self.uniforms = torch.zeros(3, MAX_GAMMA + 1, dtype=torch.float64)
        """For drafts, acceptance and the target's token."""
        self.total = torch.zeros(1, 1, dtype=torch.float64)
        self.p = self.q = torch.empty(MAX_GAMMA + 1, 0)

    def widen(self, vocab: int) -> None:
        """Allocate the rows of `p` and `q`, [MAX_GAMMA + 1, vocab] each, unless they are there."""
        if self.p.shape[1] != vocab:
            self.p, self.q = torch.empty(MAX_GAMMA + 1, vocab), torch.empty(MAX_GAMMA + 1, vocab)


class OnnxRejectionSampler:
    """The Sampler of one answer: speculative sampling, equal to RejectionSampler up to rounding."""

    def __init__(
        self,
        params: SamplingParams,
        noise: KeyedNoise,
        eos_ids: Collection[int] = (),
        alternatives: int = 0,
    ) -> None:
        self._noise = noise
        self._alternatives = alternatives
        self._eos_ids = eos_ids
        self._buffers = buffers = _Buffers(params.temperature)
        self._integers, self._numbers = buffers.integers.numpy(), buffers.numbers.numpy()
        self._uniforms = buffers.uniforms.numpy()
        self._rows = [buffers.ids[: count + 1] for count in range(MAX_GAMMA + 1)]
        self._drafts = [
            LogitsFunction(partial(_draft, buffers, step), buffers.ids[step + 1 : step + 2])
            for step in range(MAX_GAMMA)
        ]
        self._verifications: dict[tuple[int, bool], LogitsFunction] = {}
        self._count = 0
        self._one_hot = False

    def start_round(self, context: Sequence[int], gamma: int) -> None:
        """See Sampler.start_round."""
        self._integers[2] = context[-1]
        streams = self._noise.uniforms(range(len(context), len(context) + gamma + 1))
        self._uniforms[:, : gamma + 1] = streams.draft, streams.accept, streams.residual
        self._count = 0
        self._one_hot = False

    def draft(self, step: int) -> Callable[[Tensor], Any]:
        """See Sampler.draft."""
        self._count = step + 1
        return self._drafts[step]

    def take(self, ids: Sequence[int]) -> None:
        """See Sampler.take."""
        self._count = count = count_to_end(ids, self._eos_ids)
        self._one_hot = True
        self._integers[3 : count + 3] = ids[:count]
        self._numbers[2 : count + 2] = 1

    @property
    def complete(self) -> bool:
        """See Sampler.complete."""
        return self._integers.item(self._count + 2) in self._eos_ids

    @property
    def rows(self) -> Tensor:
        """See Sampler.rows."""
        return self._rows[self._count]

    @property
    def verify(self) -> Callable[[Tensor], Any]:
        """See Sampler.verify."""
        kind = self._count, self._one_hot
        if kind not in self._verifications:
            bound = (
                partial(_verification, self._buffers, *kind)
                if self._count
                else partial(_plain_draw, self._buffers)
            )
            self._verifications[kind] = LogitsFunction(bound)
        return self._verifications[kind]

    def read(self, outcome: object) -> Verdict:
        """See Sampler.read."""
        count = self._count
        accepted, token, _, *drafts = self._integers[: count + 3].tolist()
        p, q, *probs = self._numbers.tolist()
        if count == 0:
            return Verdict([], 0, token, [], [], p, None, self._likeliest([]))
        if accepted < count and not self._buffers.total.item() > 0:
            token, p, q = self._drawn_from_p(accepted)
        return Verdict(
            drafts=drafts,
            accepted=accepted,
            token=token,
            target_probs=probs[MAX_GAMMA : MAX_GAMMA + count],
            drafter_probs=probs[:count],
            token_target_prob=p,
            token_drafter_prob=None if accepted == count else 0.0 if self._one_hot else q,
            alternatives=self._likeliest(drafts),
        )

    def _likeliest(self, drafts: list[int]) -> list[Likeliest] | None:
        """The alternatives, if they are wanted."""
        if not self._alternatives:
            return None
        p, q = self._buffers.p[: len(drafts) + 1], self._buffers.q[: len(drafts)]
        return likeliest_on_host(p, one_hot(drafts, p.shape[-1]) if self._one_hot else q, self._alternatives)

    def _drawn_from_p(self, accepted: int) -> tuple[int, float, float]:
        """The token after a rejection where max(p − q, 0) is all zero, with its p and q."""
        p, q = self._buffers.p[accepted].numpy(), self._buffers.q[accepted].numpy()
        token = HostRow(p).draw(float(self._uniforms[2, accepted]))
        return token, float(p[token]), float(q[token])


def _draft(buffers: _Buffers, step: int, vocab: int) -> BoundSession:
    """The drafter's logits [1, vocab] → the id of draft `step`, with its q."""
    from .onnx_graphs import draw_session

    at = slice(step, step + 1)
    buffers.widen(vocab)
    return BoundSession(
        draw_session(vocab),
        {"inverse_temperature": buffers.inverse_temperature, "uniform": buffers.uniforms[0, at]},
        {
            "probs": buffers.q[at],
            "id": buffers.ids[None, step + 1 : step + 2],
            "prob": buffers.q_ids[None, at],
        },
    )


def _plain_draw(buffers: _Buffers, vocab: int) -> BoundSession:
    """The target's logits [1, vocab] → its token, where there are no drafts."""
    from .onnx_graphs import draw_session

    buffers.widen(vocab)
    return BoundSession(
        draw_session(vocab),
        {"inverse_temperature": buffers.inverse_temperature, "uniform": buffers.uniforms[2, :1]},
        {"probs": buffers.p[:1], "id": buffers.token[None], "prob": buffers.token_p[None]},
    )


def _verification(buffers: _Buffers, count: int, one_hot: bool, vocab: int) -> BoundSession:
    """The target's logits [count + 1, vocab] → the outcome of a round of `count` drafts."""
    from .onnx_graphs import verification_session

    buffers.widen(vocab)
    inputs = {
        "inverse_temperature": buffers.inverse_temperature,
        "ids": buffers.ids[1 : count + 1, None],
        "count": torch.tensor([count]),
        "q_ids": buffers.q_ids[:count, None],
        "accept": buffers.uniforms[1, :count, None],
        "residual": buffers.uniforms[2, : count + 1],
    }
    outputs = {
        "probs": buffers.p[: count + 1],
        "p_ids": buffers.p_ids[:count, None],
        "accepted": buffers.accepted,
        "id": buffers.token[None],
        "prob": buffers.token_p[None],
        "total": buffers.total,
    }
    if not one_hot:
        inputs["q"] = buffers.q[: count + 1]
        outputs["q_prob"] = buffers.token_q[None]
    return BoundSession(verification_session(vocab, one_hot), inputs, outputs)
