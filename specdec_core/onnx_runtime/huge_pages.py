"""Weights on huge pages, where the system is Linux and allows them.

A step reads every weight once. On pages of 4 KiB a large part of its time goes into the translation of
addresses, in a virtual machine most of all.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_log = logging.getLogger(__name__)

_MAPS = Path("/proc/self/maps")
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SIZE_FILE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_ADVISE_HUGE = 14
"""MADV_HUGEPAGE: the memory may lie on huge pages."""
_ADVISE_COLLAPSE = 25
"""MADV_COLLAPSE, since Linux 6.1: what it holds moves there now."""
_MOST_S = 2.0
"""Moving a page takes up to 4 ms. The rest of many gigabytes is left to the system's own thread."""

Range = tuple[int, int]
"""Addresses from the first up to the second."""


@contextmanager
def on_huge_pages() -> Iterator[None]:
    """Move the memory that is allocated within the context, and is still there at its end, to huge pages.

    Nothing happens where the system has none, or its administrator turned them off.
    """
    size = _page_size()
    before = _writable() if size else []
    yield
    if not size:
        return
    deadline = time.monotonic() + _MOST_S
    try:
        advise = ctypes.CDLL(None).madvise
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for start, end in _without(_writable(), before):
            first, last = -(-start // size) * size, end // size * size
            if first < last and advise(first, last - first, _ADVISE_HUGE) == 0:
                for page in range(first, last, size):  # one by one: some may have no memory yet
                    if time.monotonic() > deadline:
                        return
                    advise(page, size, _ADVISE_COLLAPSE)
    except (OSError, AttributeError) as error:
        _log.warning("Weights stay on small pages: %s", error)


def _page_size() -> int:
    """Bytes of a huge page; 0 where there are none."""
    if sys.platform != "linux":
        return 0
    try:
        return 0 if "[never]" in _SETTING.read_text() else int(_SIZE_FILE.read_text())
    except (OSError, ValueError):
        return 0


def _writable() -> list[Range]:
    """The process's private writable memory that belongs to no file, ascending."""
    ranges: list[Range] = []
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return ranges
    for line in lines:
        addresses, access, _, _, _, *name = line.split(maxsplit=5)
        if access == "rw-p" and (not name or name == ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            ranges.append((start, end))
    return ranges


def _without(ranges: list[Range], others: list[Range]) -> Iterator[Range]:
    """The parts of ascending `ranges` that are in none of the ascending `others`."""
    for start, end in ranges:
        for other_start, other_end in others:
            if other_end <= start:
                continue
            if other_start >= end:
                break
            if start < other_start:
                yield start, other_start
            start = max(start, other_end)
        if start < end:
            yield start, end
