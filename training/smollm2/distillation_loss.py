"""Distillation loss over a large vocabulary, with its gradient computed chunk by chunk.

Knows nothing of models: states and matrices go in.
"""

import torch
from torch import Tensor

from .matmul import float32_product


class DistillationLoss(torch.autograd.Function):
    """Mean over rows of cross entropy(p, q) + weight * TV(p, q).

    p = softmax(target_states @ target_head.T), q = softmax(states @ head.T), and TV(p, q) is half the sum
    of |p - q|: the probability that a draft from q is rejected (Leviathan et al. 2023, Corollary 3.6).
    The gradients are computed in `forward`, so that the logits of one chunk exist at a time: autograd would
    keep those of all rows.
    """

    @staticmethod
    def forward(
        ctx,
        states: Tensor,
        head: Tensor,
        target_states: Tensor,
        target_head: Tensor,
        tv_weight: float,
        chunk: int = 4096,
    ) -> tuple[Tensor, Tensor]:
        """Return the loss and, apart, its two terms `[2]`, which have no gradient.

        states and target_states `[rows, hidden]`, head and target_head `[ids, hidden]`.
        """
        weight, rows = head.to(states.dtype), states.shape[0]
        states_grad, head_grad = torch.empty_like(states), torch.zeros_like(head)
        sums = torch.zeros(2, device=states.device)
        for start in range(0, rows, chunk):
            part = slice(start, start + chunk)
            p = float32_product(target_states[part], target_head.T).softmax(-1)
            log_q = float32_product(states[part], weight.T).log_softmax(-1)
            sums[0] -= (p * log_q).sum()
            q = log_q.exp_()
            difference = q - p
            sums[1] += 0.5 * difference.abs().sum()
            # Gradients by the logits: q - p for the cross entropy; s - q * sum(s) for TV, where s is
            # q * sign(q - p) / 2.
            s = difference.sign().mul_(q).mul_(0.5 * tv_weight)
            logits_grad = difference.add_(s).addcmul_(q, s.sum(-1, keepdim=True), value=-1)
            logits_grad = logits_grad.div_(rows).to(states.dtype)
            states_grad[part] = logits_grad @ weight
            head_grad += float32_product(logits_grad.T, states[part])
        ctx.save_for_backward(states_grad, head_grad)
        terms = sums / rows
        ctx.mark_non_differentiable(terms)
        return terms[0] + tv_weight * terms[1], terms

    @staticmethod
    def backward(ctx, grad: Tensor, _terms_grad: Tensor):
        """Return the gradient computed in the forward pass, scaled by `grad`."""
        states_grad, head_grad = ctx.saved_tensors
        return states_grad * grad.to(states_grad.dtype), head_grad * grad, None, None, None, None
