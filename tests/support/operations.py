"""Count of the tensor operations that a function dispatches, each of which is a kernel or more on a GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from torch.utils._python_dispatch import TorchDispatchMode

_WITHOUT_KERNEL = {"alias", "as_strided", "detach", "empty", "expand", "lift_fresh", "new_empty"}
_WITHOUT_KERNEL |= {"reshape", "select", "slice", "squeeze", "transpose", "unbind", "unsqueeze", "view"}


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.__name__.split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def operations(function: Callable[[], object]) -> Counter[str]:
    """Return the number of operations of each name, without those that only make a view."""
    with _Counting() as counting:
        function()
    return Counter({name: count for name, count in counting.counts.items() if name not in _WITHOUT_KERNEL})
