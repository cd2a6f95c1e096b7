"""Acceptance of drafts and the target's token after them: pure functions over probabilities.

Never sees a model. Shapes: gamma drafts, gamma + 1 rows of the target (one for each draft, and the one after
the last), vocab entries a row. Functions of tensors run on any device without synchronizing; the `walk_`
functions take rows or choices on the host and stop at the first rejection.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .host_rows import HostRow


def residual(p: Tensor, q: Tensor) -> Tensor:
    """Return max(p − q, 0) [vocab], unnormalized; p if all zero (Leviathan et al. 2023, section 2.3)."""
    rest = (p - q).clamp_(min=0)
    return torch.where(rest.sum() > 0, rest, p)


def count_accepted(passes: Tensor) -> Tensor:
    """Return the number of leading True [1], int64, of passes [gamma]: all drafts before are accepted."""
    return passes.cumprod(0).sum(0, keepdim=True)


def walk_rejection(
    p: Sequence[HostRow],
    q: Sequence[HostRow] | None,
    drafts: Sequence[int],
    accept_uniforms: Sequence[float],
    residual_uniforms: Sequence[float],
) -> tuple[int, int]:
    """Speculative sampling (Leviathan et al. 2023, algorithm 1; Chen et al. 2023, algorithm 2).

    p, gamma + 1 rows, and q, a row for each draft or None if one-hot, are the distributions of target and
    drafter. Draft x is accepted if u·q(x) < p(x) and all drafts before it are accepted. Returns
    the number accepted and the target's token after them: the correction, drawn from the residual, after a
    rejection; else the bonus, drawn from p.
    """
    for at, draft in enumerate(drafts):
        drafter_prob = 1.0 if q is None else float(q[at].probs[draft])
        if not accept_uniforms[at] * drafter_prob < float(p[at].probs[draft]):  # so that NaN is rejected
            uniform = residual_uniforms[at]
            token = p[at].draw_without(draft, uniform) if q is None else p[at].draw_residual(q[at], uniform)
            return at, token
    return len(drafts), p[len(drafts)].draw(residual_uniforms[len(drafts)])


def walk_match(choices: Sequence[int], drafts: Sequence[int]) -> tuple[int, int]:
    """Acceptance of drafts up to the first that differs from the target's choice.

    For models that choose by one rule: argmax, or argmax of log probability plus shared noise. The choices
    [gamma + 1] are the target's, the drafts [gamma] the drafter's. Returns the number accepted and the
    target's token after them.
    """
    accepted = next((at for at, draft in enumerate(drafts) if draft != choices[at]), len(drafts))
    return accepted, choices[accepted]
