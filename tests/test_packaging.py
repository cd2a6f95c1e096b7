"""The wheel: what `pip install .` brings, and that it works away from the checkout."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import specdec_core

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(lines):
    """name → the whole requirement, comments and white space left out."""
    wanted = [re.sub(r"\s+", "", line.partition("#")[0]).replace('"', "'") for line in lines]
    return {re.split(r"[<>=;\[]", line)[0].lower(): line for line in wanted if line}


def requirements_file(name):
    return requirements((ROOT / name).read_text(encoding="utf-8").splitlines())


def test_a_laptop_installs_what_the_package_depends_on_with_torch_pinned():
    listed, declared = requirements_file("requirements.txt"), requirements(PROJECT["dependencies"])
    assert re.fullmatch(r"torch==[\d.]+", listed.pop("torch"))
    assert declared.pop("torch") == "torch>=2.8"
    assert listed == declared


def test_tests_install_the_extra_dev():
    assert requirements_file("tests/requirements.txt") == requirements(
        PROJECT["optional-dependencies"]["dev"]
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel unpacked, as `pip install --target` leaves it."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    built = subprocess.run([*build, "-w", str(folder), str(ROOT)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("specdec_chat-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def specdec(installed, folder, *arguments):
    """The console script's own words, run in `folder` with nothing of the checkout on the path."""
    code = "import sys; from specdec_core.cli import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=folder,
        env={"PATH": "", "HOME": str(folder), "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
def test_the_wheel_holds_packages_and_presets_and_nothing_else(installed):
    assert {path.name for path in installed.iterdir()} == {
        "specdec_core", "specdec_ui", f"specdec_chat-{specdec_core.__version__}.dist-info",
    }  # fmt: skip
    presets = {path.name for path in (installed / "specdec_core" / "_presets").glob("*.toml")}
    assert presets == {path.name for path in (ROOT / "presets").glob("*.toml")}
    assert (installed / "specdec_ui" / "static" / "style.css").is_file()


@pytest.mark.slow
def test_the_installed_command_answers_from_another_folder(installed, tmp_path):
    assert specdec_core.__version__ in specdec(installed, tmp_path, "--version").stdout
    listed = specdec(installed, tmp_path, "presets").stdout.splitlines()
    assert [line for line in listed if line.startswith("stories ")]
    asked = ["generate", "--preset", "stories", "--message", "Tell me a story.", "--max-new-tokens", "8"]
    answered = specdec(installed, tmp_path, *asked, "--temperature", "0", "--device", "cpu")
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.startswith("Once upon a time")


@pytest.mark.slow
def test_the_page_is_a_command_of_the_installed_package(installed, tmp_path):
    helped = specdec(installed, tmp_path, "ui", "--help")
    assert "--port" in helped.stdout, helped.stderr
