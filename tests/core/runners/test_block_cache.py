"""Quantized weights are searched once, and found again only for the same values."""

import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from specdec_core.cache_folder import cache_contents, cache_folder
from specdec_core.cli import main
from specdec_core.runners.onnx import block_cache
from specdec_core.runners.onnx.block_cache import cached_int4_blocks
from specdec_core.runners.onnx.blocks import int4_blocks

PARTS = ("codes", "scales", "minima")


@pytest.fixture(autouse=True)
def _small_weights_too(monkeypatch):
    monkeypatch.setattr(block_cache, "_FEWEST_WEIGHTS", 0)


@pytest.fixture
def searches(monkeypatch) -> list:
    """The weights that are searched."""
    searched = []

    def search(weight):
        searched.append(weight)
        return int4_blocks(weight)

    monkeypatch.setattr(block_cache, "int4_blocks", search)
    return searched


def _weight(seed: int = 1) -> torch.Tensor:
    return torch.randn(24, 96, generator=torch.Generator().manual_seed(seed))


def _equal(got, weight) -> bool:
    wanted = int4_blocks(weight).packed()
    return all(torch.equal(getattr(got, part), getattr(wanted, part)) for part in PARTS)


def _entry() -> Path:
    (path,) = cache_folder().glob("*/*")
    return path


def test_a_second_load_searches_nothing(searches):
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert len(searches) == 1


def test_a_part_of_a_larger_weight_is_the_same_weight(searches):
    wide = torch.cat([_weight(), _weight(2)], dim=1)
    cached_int4_blocks(_weight())
    assert _equal(cached_int4_blocks(wide[:, :96]), _weight())
    assert len(searches) == 1


@pytest.mark.parametrize("changed", ["value", "shape", "version"])
def test_other_values_shapes_and_searches_have_entries_of_their_own(changed, searches, monkeypatch):
    cached_int4_blocks(_weight())
    other = _weight()
    if changed == "value":
        other[3, 5] += 1e-6
    elif changed == "shape":
        other = other.view(72, 32)
    else:
        monkeypatch.setattr(block_cache, "SEARCH_VERSION", 999)
    assert _equal(cached_int4_blocks(other), other)
    assert len(searches) == 2


@pytest.mark.parametrize("damage", ["cut", "empty", "other format", "other shape"])
def test_a_damaged_entry_is_made_again(damage, searches):
    cached_int4_blocks(_weight())
    path = _entry()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "other format":
        path.write_bytes(b"not safetensors" * 100)
    else:
        entry = path.read_bytes()
        cached_int4_blocks(_weight().view(72, 32))
        (other,) = set(cache_folder().glob("*/*")) - {path}
        shutil.copy(other, path)
        assert path.read_bytes() != entry
    before = len(searches)
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert len(searches) == before + 1
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert len(searches) == before + 1


def test_where_nothing_can_be_written_weights_are_quantized_all_the_same(searches, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "file"))
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert cache_contents().files == 0


def test_a_write_that_fails_leaves_no_file(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(block_cache, "save_file", full)
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert cache_contents().files == 0


def test_a_disk_that_is_nearly_full_is_left_alone(monkeypatch):
    monkeypatch.setattr(block_cache, "_LEFT_FREE", 2**62)
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert cache_contents().files == 0


def test_loads_at_the_same_time_write_one_whole_entry():
    got = []
    threads = [threading.Thread(target=lambda: got.append(cached_int4_blocks(_weight()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert all(_equal(blocks, _weight()) for blocks in got)
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert cache_contents().files == 1


def test_a_folder_that_may_not_be_read_is_none(tmp_path, monkeypatch, searches):
    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(block_cache, "load_file", forbidden)
    assert _equal(cached_int4_blocks(_weight()), _weight())


def test_files_of_others_are_neither_counted_nor_deleted(capsys):
    cached_int4_blocks(_weight())
    for place in ("notes.txt", "other/letter.txt", f"{_entry().parent.name}/picture.png"):
        (cache_folder() / place).parent.mkdir(exist_ok=True)
        (cache_folder() / place).write_text("mine")
    assert main(["cache", "--clear"]) == 0
    assert "1 file of" in capsys.readouterr().out
    assert sum(path.read_text() == "mine" for path in cache_folder().rglob("*.*")) == 3
    assert cache_contents().files == 0


def test_small_weights_are_not_kept(monkeypatch):
    monkeypatch.setattr(block_cache, "_FEWEST_WEIGHTS", 24 * 96 + 1)
    assert _equal(cached_int4_blocks(_weight()), _weight())
    assert cache_contents().files == 0


# The command


def test_the_command_shows_and_deletes_what_is_kept(capsys):
    cached_int4_blocks(_weight())
    cached_int4_blocks(_weight(2))
    size = sum(path.stat().st_size for path in cache_folder().glob("*/*"))
    assert main(["cache", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"folder": str(cache_folder()), "files": 2, "size_bytes": size, "cleared": False}
    assert main(["cache", "--clear"]) == 0
    assert "2 files of 0 MB deleted" in capsys.readouterr().out
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{cache_folder()}: 0 files of 0 MB\n"


def test_the_folder_lies_beside_the_hub_s(monkeypatch, tmp_path):
    monkeypatch.delenv("SPECDEC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "specdec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "specdec"
