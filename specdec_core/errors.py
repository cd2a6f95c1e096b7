"""The errors of this package. Each message has what was wrong, the value, and what to do next.

Errors about a caller's values are ValueErrors too; a library's error is quoted in one line. Knows nothing of
where an error is displayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .gate.report import PairReport


class SpecDecError(Exception):
    """Base of all errors that this package raises on purpose; `str(error)` is written for people."""


class SettingsError(SpecDecError, ValueError):
    """A setting of an answer is out of range or does not fit the loaded pair."""


class PromptError(SpecDecError, ValueError):
    """The prompt cannot be answered: empty, not text, or too long for the context."""


class PresetError(SpecDecError, ValueError):
    """A preset is unknown or its file is wrong; the message names file and key."""


class IncompatiblePairError(SpecDecError, ValueError):
    """The gate refused a pair. `report` has every check."""

    def __init__(self, report: PairReport) -> None:
        super().__init__(str(report))
        self.report = report


class PairUncheckableError(SpecDecError):
    """A pair could not be checked: no such folder or repository, no access, no network."""


class AnswerError(SpecDecError):
    """An answer could not go on: logits that are not finite, or memory that ran out. What was emitted stays
    valid, and the pair goes on serving.
    """


class LoadCancelledError(SpecDecError):
    """A load was cancelled; nothing of the pair is in memory."""


class LoadError(SpecDecError):
    """Weights could not be loaded: no access, no room, missing, corrupt, or not fitting the configuration."""


def quote(error: BaseException) -> str:
    """Return the class and the first line of a library's error, to be quoted in a message."""
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
