"""Products for the few rows of decoding and verification on a CPU, for which F.linear is slow.

For one row F.linear is a matrix-vector product on a single thread; for 2 to 8 rows it packs the weight anew
each time. weight @ x.T does neither (the figures are in docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

MOST_ROWS = 8
_PACKED_FOR_ROWS = 5
_SMALLEST_PACKED_BYTES = 2**19
_LARGEST_PACKED_BYTES = 32 * 2**20


def few_rows_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [rows, in], weight [out, in] → [rows, out], in column-major order for few rows."""
    rows = x.shape[0]
    if rows > MOST_ROWS:
        return torch.nn.functional.linear(x, weight)
    # Two rows are a product of matrices, which runs on all threads, so one row is doubled.
    return (weight @ (x if rows > 1 else x.repeat(2, 1)).t()).t()[:rows]


class Projection:
    """A linear layer: x [rows, in] → [rows, out] for any number of rows.

    If torch has oneDNN's packed linear, the weight is packed beforehand: then verifying 5 rows costs 1.1 of
    one row in place of 1.25. A packed weight is a copy, so large ones are left as they are; small ones too,
    since calling the packed product takes longer.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self._packed: Tensor | None = None
        if packed_bytes(weight.nbytes):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed is None:
            out = few_rows_linear(x, self.weight)
            return out if self.bias is None else out + self.bias
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


def packed_bytes(weight_bytes: int) -> int:
    """Bytes of the packed copy that a Projection makes of a weight of `weight_bytes`; 0 if it makes none."""
    fits = _SMALLEST_PACKED_BYTES <= weight_bytes <= _LARGEST_PACKED_BYTES
    packs = fits and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return weight_bytes if packs else 0


class FewRowsLinear(torch.nn.Linear):
    """An nn.Linear over another one's weights, with the same results up to rounding."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        _init_over(self, linear)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in] → [..., out]."""
        out = few_rows_linear(x.reshape(-1, self.in_features), self.weight)
        if self.bias is not None:
            out = out + self.bias
        # Modules may view their inputs in ways that need rows (torch.view_as_complex); the copy is small.
        return out.contiguous().view(*x.shape[:-1], self.out_features)


def use_few_rows(model: torch.nn.Module) -> None:
    """Replace the model's float32 nn.Linear layers on the CPU by FewRowsLinear over the same weights."""
    for parent, name, linear in _children(model, torch.nn.Linear):
        # accelerate's hook, which moves the weights of a split model, stays with the module it was put on.
        if linear.weight.dtype == torch.float32 and linear.weight.is_cpu and not hasattr(linear, "_hf_hook"):
            setattr(parent, name, FewRowsLinear(linear))


@contextmanager
def stock_layers(*models: torch.nn.Module) -> Iterator[None]:
    """Within it the models have the layers that transformers gave them, for measuring transformers itself."""
    replaced = [place for model in models for place in _children(model, FewRowsLinear)]
    for parent, name, linear in replaced:
        stock = torch.nn.Linear.__new__(torch.nn.Linear)
        _init_over(stock, linear)
        setattr(parent, name, stock)
    try:
        yield
    finally:
        for parent, name, linear in replaced:
            setattr(parent, name, linear)


def _children(
    model: torch.nn.Module, kind: type[torch.nn.Linear]
) -> list[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """Every (parent, name, layer) of exactly this kind."""
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is kind and isinstance(child, torch.nn.Linear)
    ]


def _init_over(new: torch.nn.Linear, linear: torch.nn.Linear) -> None:
    """Initialize a layer over the parameters of another one, without memory of its own."""
    torch.nn.Linear.__init__(
        new, linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta"
    )
    new.weight, new.bias = linear.weight, linear.bias
    new.train(linear.training)
