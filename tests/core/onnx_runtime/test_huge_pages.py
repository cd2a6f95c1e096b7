"""Memory that a session allocates lies on huge pages afterwards, and nothing else is touched."""

import ctypes
import mmap
import sys
from pathlib import Path

import pytest

from specdec_core.onnx_runtime import huge_pages
from specdec_core.onnx_runtime.huge_pages import on_huge_pages

_PAGE = 2 * 2**20


def _huge_bytes(memory: mmap.mmap) -> int:
    """Bytes on huge pages in the mapping that holds this memory, from what the kernel says."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and not head.endswith(":"):
            start, end = (int(part, 16) for part in head.split("-"))
            inside = start <= address < end
        elif inside and head == "AnonHugePages:":
            return 1024 * int(line.split()[1])
    raise AssertionError("the memory is in no mapping")


def _filled(pages: int) -> mmap.mmap:
    memory = mmap.mmap(-1, pages * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # small ones first, whatever the system's default is
    memory.write(b"x" * len(memory))
    return memory


@pytest.mark.skipif(not huge_pages._page_size(), reason="this system has no huge pages")
def test_only_what_is_allocated_within_the_context_moves_to_huge_pages():
    before = _filled(4)
    with on_huge_pages():
        within = _filled(4)
    assert _huge_bytes(before) == 0
    assert within[:] == b"x" * len(within)
    if _huge_bytes(within) == 0:
        pytest.skip("this kernel moves memory to huge pages later (before Linux 6.1), or has none free")
    assert _huge_bytes(within) >= 2 * _PAGE


@pytest.mark.parametrize("setting", ["always madvise [never]", "", None])
def test_nothing_happens_where_the_system_has_no_huge_pages(setting, monkeypatch, tmp_path):
    file = tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting)
    monkeypatch.setattr(huge_pages, "_SETTING", file)
    if setting == "":
        monkeypatch.setattr(huge_pages, "_SIZE_FILE", tmp_path / "missing")
    with on_huge_pages():
        pass
    assert huge_pages._page_size() == 0


def test_nothing_happens_on_another_system(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert huge_pages._page_size() == 0


def test_the_parts_of_ranges_that_are_in_no_other():
    got = list(huge_pages._without([(0, 10), (20, 30), (40, 50)], [(2, 4), (6, 7), (8, 22), (28, 60)]))
    assert got == [(0, 2), (4, 6), (7, 8), (22, 28)]
    assert list(huge_pages._without([(0, 10)], [])) == [(0, 10)]


@pytest.mark.skipif(not huge_pages._page_size(), reason="this system has no huge pages")
def test_moving_ends_in_time_for_many_gigabytes(monkeypatch):
    monkeypatch.setattr(huge_pages, "_MOST_S", -1.0)
    with on_huge_pages():
        within = _filled(4)
    assert _huge_bytes(within) == 0
    assert within[:] == b"x" * len(within)
