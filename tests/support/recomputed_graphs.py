"""Replacement of a capture without a GPU: a replay calls the function again, into the same result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor


class Recomputed:
    """Counts captures, and raises an error in them or in replays when told to."""

    def __init__(self) -> None:
        self.captures = 0
        self._failures: dict[str, list[Exception]] = {"capture": [], "replay": []}

    def fail(self, where: Literal["capture", "replay"], error: Exception, times: int = 1) -> None:
        """Raise the error in the next captures or replays."""
        self._failures[where] += [error] * times

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        """Capture a function that returns a new tensor."""
        self.captures += 1
        self._raise("capture")
        result = function()

        def replay() -> None:
            self._raise("replay")
            result.copy_(function())

        return replay, result

    def _raise(self, where: str) -> None:
        if self._failures[where]:
            raise self._failures[where].pop()
