"""Progress of a run as JSON lines, on standard output and in `log.jsonl`.

Owns the run's clock, which starts in the process that watches this one.
"""

import time
from pathlib import Path

from specdec_core import to_json


class RunLog:
    """Writes lines with `t`, the seconds since the run began, and `phase`."""

    def __init__(self, folder: Path, started: float):
        """`started` is in seconds since the epoch (`time.time()`)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._started = started
        self._path = folder / "log.jsonl"

    def now(self) -> float:
        """Return the seconds since the run began."""
        return time.time() - self._started

    def write(self, phase: str, **values: object) -> None:
        """Print and append one JSON line with the time since the start."""
        rounded = {
            name: float(f"{value:.5g}") if isinstance(value, float) else value
            for name, value in values.items()
        }
        line = to_json({"t": round(self.now(), 1), "phase": phase, **rounded})
        print(line, flush=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
