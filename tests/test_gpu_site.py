"""The folder for a GPU machine that scripts/gpu_site.py unpacks wheels into. Nothing is downloaded."""

import importlib.util
import zipfile
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "gpu_site", Path(__file__).parents[1] / "scripts" / "gpu_site.py"
)
gpu_site = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(gpu_site)


@pytest.fixture
def wheels(tmp_path) -> list[Path]:
    contents = {
        "bitsandbytes": [
            "bitsandbytes/__init__.py",
            *(f"bitsandbytes/libbitsandbytes_{kind}.so" for kind in ("cuda128", "cuda130", "cpu", "rocm62")),
        ],
        "pydantic": ["pydantic/__init__.py"],
        "typing_extensions": ["typing_extensions.py", "typing_extensions-4.0.dist-info/METADATA"],
    }
    paths = []
    for name, files in contents.items():
        paths.append(tmp_path / f"{name}-1-py3-none-any.whl")
        with zipfile.ZipFile(paths[-1], "w") as wheel:
            for file in files:
                wheel.writestr(file, "")
    return paths


def test_one_library_of_bitsandbytes_stays_and_nothing_that_torch_has(wheels, tmp_path):
    gpu_site.unpack(wheels, tmp_path / "site", "13.0")
    files = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.*")}
    assert files == {
        gpu_site.MARK,
        "bitsandbytes/__init__.py",
        "bitsandbytes/libbitsandbytes_cuda130.so",
        "bitsandbytes/libbitsandbytes_cpu.so",
        "pydantic/__init__.py",
    }


def test_a_version_of_cuda_without_a_library_is_refused_with_those_there_are(wheels, tmp_path):
    with pytest.raises(SystemExit, match=r"no libbitsandbytes_cuda999\.so, only .*cuda130"):
        gpu_site.unpack(wheels, tmp_path / "site", "99.9")


def test_a_refused_version_of_cuda_leaves_the_folder_as_it_was(wheels, tmp_path):
    gpu_site.unpack(wheels, tmp_path / "site", "13.0")
    before = sorted((tmp_path / "site").rglob("*"))
    with pytest.raises(SystemExit):
        gpu_site.unpack(wheels, tmp_path / "site", "99.9")
    assert sorted((tmp_path / "site").rglob("*")) == before


def test_another_version_replaces_the_one_before(wheels, tmp_path):
    gpu_site.unpack(wheels, tmp_path / "site", "13.0")
    (tmp_path / "site" / "pydantic-1.0.dist-info").mkdir()
    gpu_site.unpack(wheels, tmp_path / "site", "12.8")
    assert (tmp_path / "site" / "bitsandbytes" / "libbitsandbytes_cuda128.so").exists()
    assert not (tmp_path / "site" / "bitsandbytes" / "libbitsandbytes_cuda130.so").exists()
    assert not (tmp_path / "site" / "pydantic-1.0.dist-info").exists()


@pytest.mark.parametrize("kept", ["notes.txt", "bitsandbytes/__init__.py"])
def test_a_folder_with_something_else_in_it_is_left_alone(wheels, tmp_path, kept):
    """A virtual environment, for example, which has bitsandbytes, too."""
    file = tmp_path / "site" / kept
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(SystemExit, match="something else"):
        gpu_site.unpack(wheels, tmp_path / "site", "13.0")
    assert file.exists()


def test_a_file_in_place_of_the_folder_is_left_alone(wheels, tmp_path):
    (tmp_path / "site").touch()
    with pytest.raises(SystemExit, match="something else"):
        gpu_site.unpack(wheels, tmp_path / "site", "13.0")
