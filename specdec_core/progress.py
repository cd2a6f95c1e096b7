"""Progress reporting and cancellation for loads. Knows nothing of what is loaded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import LoadCancelledError

Progress = Callable[[str, float | None], None]
"""Called with the present step and, if known, the share of the whole load that is done (0 to 1)."""


@dataclass(slots=True)
class Watch:
    """Progress callback and cancel event of one load. An exception of `on_progress` ends the load at once,
    and so does `cancel` once it is set.
    """

    on_progress: Progress | None = None
    cancel: threading.Event | None = None
    raised: Exception | None = field(default=None, init=False)
    """The exception of `on_progress` that ended the load."""

    def say(self, message: str, fraction: float | None = None) -> None:
        """Report a step. Raises LoadCancelledError if the load was cancelled."""
        self.check()
        if self.on_progress is not None:
            try:
                self.on_progress(message, fraction)
            except Exception as error:
                self.raised = error
                raise
            self.check()

    def check(self) -> None:
        """Raise LoadCancelledError if the load was cancelled."""
        if self.cancel is not None and self.cancel.is_set():
            raise LoadCancelledError(
                "Loading was cancelled. What was downloaded is kept; load again to go on from there."
            )
