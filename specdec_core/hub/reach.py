"""Reachability of the Hub, asked before a model's files are.

The Hub's client retries for 24 s before it gives a connection up, and that for each file; the resolution of a
name has no time limit at all.
"""

from __future__ import annotations

import threading
import time

from huggingface_hub import constants, get_session

PROBE_S = 3.0
"""Longest time to wait for an answer of the Hub."""
_REMEMBERED_S = 20.0
"""Time for which a Hub that did not answer is not asked again: a load asks for each model, twice."""


class _Silence:
    """The last endpoint that did not answer, and the time."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.since = 0.0

    def lasts(self) -> bool:
        return self.endpoint == constants.ENDPOINT and time.monotonic() - self.since < _REMEMBERED_S


_silence = _Silence()


def hub_is_reachable() -> bool:
    """Return True if the Hub answers, whatever it says; False without asking where HF_HUB_OFFLINE is set."""
    if constants.HF_HUB_OFFLINE or _silence.lasts():
        return False
    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_S)
            answered.set()
        except Exception:
            return

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_S)
    if not answered.is_set():
        _silence.endpoint, _silence.since = constants.ENDPOINT, time.monotonic()
    return answered.is_set()
