"""Matrix products whose float32 result is never rounded to the operands' type on the way.

Logits rounded to bfloat16 have steps of 0.1, which is too coarse for a distribution.
"""

from functools import cache

import torch
from torch import Tensor


def float32_product(a: Tensor, b: Tensor) -> Tensor:
    """Return `a @ b` in float32; `a` is `[m, k]`, `b` is `[k, n]`, of one type."""
    if accumulates_in_float32(a.device.type, a.dtype):
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


@cache
def accumulates_in_float32(device_type: str, dtype: torch.dtype) -> bool:
    """Check whether torch.mm with `out_dtype` works and is right for this type, transposed operands included.

    A try, because support depends on the version of torch and of cuBLAS.
    """
    if device_type != "cuda" or dtype == torch.float32:
        return False
    a = torch.randn(96, 64, device=device_type, dtype=dtype)
    b = torch.randn(64, 96, device=device_type, dtype=dtype)
    try:
        return all(
            torch.allclose(
                torch.mm(x, y, out_dtype=torch.float32), x.float() @ y.float(), atol=1e-3, rtol=1e-3
            )
            for x, y in ((a, b), (a, a.T), (a.T, a))
        )
    except (RuntimeError, TypeError):
        return False
