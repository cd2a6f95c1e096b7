"""Assembly of a folder with what a GPU machine lacks that cannot reach a package index.

    python scripts/gpu_site.py                      # .gpu/site, for Python 3.12 on x86-64 Linux and CUDA 13.0
    python scripts/gpu_site.py FOLDER --python 3.11 --cuda 12.8

    PYTHONPATH=.gpu/site python3 -m specdec_core bench --gpu-checks       # on that machine, which has torch

Holds pydantic with what it needs, and bitsandbytes with its library for one version of CUDA: 12 MB, where the
whole wheel unpacks to hundreds. Leaves out typing_extensions, which torch brings along.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".gpu" / "site"
MARK = ".gpu_site"
"""A file in a folder that this script made, and may replace: a virtual environment has bitsandbytes, too."""
BITSANDBYTES = "0.50.2"
LEFT_OUT = ("typing_extensions.py", "typing_extensions-")
"""Beginnings of names that torch's own packages have."""
_PLATFORMS = ("2_17", "2_24", "2_28")
"""Versions of glibc that wheels are tagged with; pip takes each tag by itself."""


def main(argv: Sequence[str] | None = None) -> None:
    """Download the wheels and unpack them into the folder, in place of what it held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help=f"(default {FOLDER})")
    parser.add_argument("--python", default="3.12", metavar="VERSION", help="of that machine (default 3.12)")
    parser.add_argument("--machine", default="x86_64", help="its processor (default x86_64)")
    parser.add_argument("--cuda", default="13.0", metavar="VERSION", help="torch's (default 13.0)")
    parser.add_argument("--bitsandbytes", default=BITSANDBYTES, metavar="VERSION")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="specdec-wheels-") as wheels:
        download(["pydantic"], arguments.python, arguments.machine, Path(wheels))
        bitsandbytes = f"bitsandbytes=={arguments.bitsandbytes}"
        download([bitsandbytes, "--no-deps"], arguments.python, arguments.machine, Path(wheels))
        unpack(sorted(Path(wheels).glob("*.whl")), arguments.folder, arguments.cuda)
    size = sum(path.stat().st_size for path in arguments.folder.rglob("*") if path.is_file())
    print(f"{arguments.folder}: {size / 1e6:.0f} MB", *sorted(p.name for p in arguments.folder.iterdir()))


def download(packages: Sequence[str], python: str, machine: str, wheels: Path) -> None:
    """Download the wheels of packages for another machine. Raises SystemExit if there are none."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    command += ["--python-version", python, "--implementation", "cp", "--dest", str(wheels)]
    for glibc in _PLATFORMS:
        command += ["--platform", f"manylinux_{glibc}_{machine}"]
    command += ["--platform", f"manylinux2014_{machine}", *packages]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"pip found no wheels of {packages[0]} for Python {python} on {machine}: see above.")


def unpack(wheels: Sequence[Path], folder: Path, cuda: str) -> None:
    """Unpack wheels into the folder, without what torch has and without libraries for other versions of CUDA.

    Raises SystemExit, with the folder as it was, if bitsandbytes has no library for this one, or for a folder
    with other contents.
    """
    contents = {wheel: _wanted(zipfile.ZipFile(wheel).namelist()) for wheel in wheels}
    names = [name for files in contents.values() for name in files]
    unwanted = _other_libraries(names, cuda)
    if folder.exists() and not (folder.is_dir() and (MARK in os.listdir(folder) or not os.listdir(folder))):
        raise SystemExit(f"{folder} holds something else. Name an empty folder.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    for wheel, files in contents.items():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder, [name for name in files if name not in unwanted])


def _wanted(names: Sequence[str]) -> list[str]:
    return [name for name in names if not name.startswith(LEFT_OUT)]


def _other_libraries(names: Sequence[str], cuda: str) -> set[str]:
    """The libraries of bitsandbytes for GPUs with another version of CUDA."""
    prefix = "bitsandbytes/libbitsandbytes_"
    libraries = {name for name in names if name.startswith(prefix) and name.endswith(".so")}
    library = f"{prefix}cuda{cuda.replace('.', '')}.so"
    if library not in libraries:
        there_are = ", ".join(sorted(Path(name).name for name in libraries)) or "none"
        raise SystemExit(
            f"bitsandbytes has no {Path(library).name}, only {there_are}. "
            "Name one of these versions with --cuda."
        )
    return libraries - {library, f"{prefix}cpu.so"}


if __name__ == "__main__":
    main()
