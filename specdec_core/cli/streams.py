"""The standard streams of a command: missing characters, input that is not text, outputs that end early.

Knows nothing of the commands.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

CLOSED_PIPE = 141
"""Exit code of a command whose reader has gone: 128 + SIGPIPE, as the shell reports for C programs."""


def prepare_streams() -> None:
    """Write "?" for a character that the encoding of stdout lacks, and keep bytes of stdin that are not text
    as lone surrogates. A stream that was closed before the start becomes an empty one.
    """
    for name, mode, errors in (
        ("stdin", "r", "surrogateescape"),
        ("stdout", "w", "replace"),
        ("stderr", "w", "backslashreplace"),
    ):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors=errors))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def abandon_output() -> None:
    """Send the rest of stdout nowhere, so that Python's flush at the end does not fail as well."""
    with suppress(OSError, ValueError):  # no file behind it, or closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def report(message: object) -> None:
    """Write a line to stderr. Nothing happens if stderr cannot be written: there is nobody to tell."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)
