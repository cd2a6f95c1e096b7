"""Whom a load tells how far it has come, and how it is called off.

Knows nothing of what is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from .errors import LoadCancelledError

Progress = Callable[[str, float | None], None]
"""Called with what is being done and, where known, the share of the whole that is done (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What `on_progress` raises ends the load where it stands, and so does `cancel` once it is set."""

    on_progress: Progress | None = None
    cancel: threading.Event | None = None

    def say(self, message: str, fraction: float | None = None) -> None:
        self.check()
        if self.on_progress is not None:
            self.on_progress(message, fraction)
            self.check()

    def check(self) -> None:
        """Raises LoadCancelledError if the load was called off."""
        if self.cancel is not None and self.cancel.is_set():
            raise LoadCancelledError(
                "Loading was cancelled. What was downloaded is kept; load again to go on from there."
            )
