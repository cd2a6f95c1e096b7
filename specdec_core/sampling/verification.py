"""Acceptance of drafts and the target's token after them: pure functions over probabilities.

Never sees a model. Shapes: gamma drafts, gamma + 1 rows of the target (one for each draft, and the one after
the last), vocab entries a row. The `verify_` functions run on any device without synchronizing; the `walk_`
functions give the same results for arrays on the host and stop at the first rejection.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .noise import draw, draw_on_host


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Return max(p − q, 0) [vocab], unnormalized; p if all zero (Leviathan et al. 2023, section 2.3)."""
    rest = (p - q).clamp_(min=0)
    return torch.where(rest.sum() > 0, rest, p)


def verify_rejection(
    p: Tensor, q: Tensor, drafts: Tensor, accept_uniforms: Tensor, residual_uniforms: Tensor
) -> tuple[Tensor, Tensor]:
    """Speculative sampling (Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2).

    p [gamma + 1, vocab] and q [gamma, vocab] are the distributions of target and drafter, drafts [gamma]
    int64, accept_uniforms [gamma] and residual_uniforms [gamma + 1] independent in (0, 1). Draft x is
    accepted if u·q(x) < p(x) and all drafts before it are accepted. Returns the number accepted [1] and the
    target's token after them [1]: the correction, drawn from the residual, after a rejection; else the bonus,
    drawn from p.
    """
    gamma = drafts.shape[0]
    passes = accept_uniforms * gather_rows(q, drafts) < gather_rows(p, drafts)
    accepted = passes.int().cumprod(0).sum(0, keepdim=True)
    if gamma == 0:
        return accepted, draw(p[0], residual_uniforms)
    # A row of zeros after q makes the bonus a special case of the residual, without a branch on the host.
    q_next = torch.cat([q, torch.zeros_like(q[:1])]).index_select(0, accepted)[0]
    p_next = p.index_select(0, accepted)[0]
    return accepted, draw(residual(p_next, q_next), residual_uniforms.index_select(0, accepted))


def verify_match(choices: Tensor, drafts: Tensor) -> tuple[Tensor, Tensor]:
    """Acceptance of drafts up to the first that differs from the target's choice.

    For models that choose by one rule: argmax, or argmax of log probability plus shared noise. The choices
    [gamma + 1] are the target's, the drafts [gamma] the drafter's. Returns the number accepted [1] and the
    target's token after them [1].
    """
    accepted = (choices[:-1] == drafts).int().cumprod(0).sum(0, keepdim=True)
    return accepted, choices.index_select(0, accepted)


def walk_rejection(
    p: np.ndarray,
    q: Sequence[np.ndarray] | None,
    drafts: Sequence[int],
    accept_uniforms: Sequence[float],
    residual_uniforms: Sequence[float],
) -> tuple[int, int]:
    """`verify_rejection` draft by draft; q has a row [vocab] for each draft, or is None if one-hot."""
    for at, draft in enumerate(drafts):
        drafter_prob = 1.0 if q is None else float(q[at][draft])
        if not accept_uniforms[at] * drafter_prob < float(p[at, draft]):  # so that NaN is rejected
            if q is None:
                rest = p[at].copy()
                rest[draft] = 0
            else:
                rest = np.maximum(p[at] - q[at], 0)
            weights = torch.from_numpy(rest if rest.max() > 0 else p[at])
            return at, draw_on_host(weights, residual_uniforms[at])
    return len(drafts), draw_on_host(torch.from_numpy(p[len(drafts)]), residual_uniforms[len(drafts)])


def walk_match(choices: Sequence[int], drafts: Sequence[int]) -> tuple[int, int]:
    """`verify_match` draft by draft."""
    accepted = next((at for at, draft in enumerate(drafts) if draft != choices[at]), len(drafts))
    return accepted, choices[accepted]


def gather_rows(probs: Tensor, ids: Tensor) -> Tensor:
    """Return the probability [ids] of each id in its row of probs [rows, vocab], where ids <= rows."""
    return probs[: ids.shape[0]].gather(1, ids[:, None])[:, 0]
