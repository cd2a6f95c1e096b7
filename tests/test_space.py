"""The folder that scripts/make_space.py assembles: what it holds, what it says of itself, that it runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import metadata_load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "make_space.py"


def make_space(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *arguments], capture_output=True, text=True, cwd="/"
    )


@pytest.fixture(scope="module")
def space(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "space"
    made = make_space(folder)
    assert made.returncode == 0, made.stderr
    return folder


def test_it_holds_what_runs_and_nothing_else(space):
    assert {path.name for path in space.iterdir()} == {
        "LICENSE", "README.md", "app.py", "presets", "requirements.txt",
        "space-preset.txt", "specdec_core", "specdec_ui",
    }  # fmt: skip
    assert not list(space.rglob("__pycache__"))
    assert not list((space / "presets").rglob("*.py"))


def test_no_file_needs_large_file_storage(space):
    assert max(path.stat().st_size for path in space.rglob("*") if path.is_file()) <= 10_000_000


def test_the_front_matter_is_what_a_space_needs(space):
    values = metadata_load(space / "README.md")
    assert values["sdk"] == "gradio"
    assert values["sdk_version"] == "6.31.0"
    assert values["app_file"] == "app.py"
    assert values["python_version"] == "3.12"
    assert values["suggested_hardware"] == "cpu-basic"
    assert len(values["short_description"]) <= 60
    assert not {"models", "preload_from_hub", "hf_oauth"} & set(values)


def test_it_is_for_its_preset_unless_the_operator_names_another(space, tmp_path):
    asks = [sys.executable, "-c", "from specdec_ui.state import space; print(space.fixed_preset())"]

    def answer(folder: Path, **variables: str) -> str:
        clean = {
            key: value for key, value in os.environ.items() if key not in ("SPECDEC_PRESET", "PYTHONPATH")
        }
        return subprocess.run(
            asks, cwd=folder, env=clean | variables, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert answer(space) == "stories"
    make_space(tmp_path / "large", "--preset", "qwen3")
    assert answer(tmp_path / "large") == "qwen3"
    assert answer(tmp_path / "large", SPECDEC_PRESET="gemma") == "gemma"
    assert answer(ROOT) == "None"
    assert answer(ROOT, SPACES_ZERO_GPU="true") == "stories"


def test_hardware_and_login_are_the_operators_choice(tmp_path):
    made = make_space(tmp_path / "zero", "--preset", "qwen3", "--hardware", "zero-a10g", "--login")
    assert made.returncode == 0, made.stderr
    values = metadata_load(tmp_path / "zero" / "README.md")
    assert values["suggested_hardware"] == "zero-a10g"
    assert (values["hf_oauth"], values["hf_oauth_scopes"]) == (True, ["gated-repos"])
    assert values["startup_duration_timeout"] == "1h"


def test_torch_is_one_that_the_hubs_hardware_has(space):
    assert "torch>=2.8,<2.12" in (space / "requirements.txt").read_text().splitlines()


def test_the_projects_own_readme_has_no_front_matter():
    assert not (ROOT / "README.md").read_text(encoding="utf-8").startswith("---")


def test_open_models_are_fetched_while_the_space_is_built_and_gated_ones_are_not(tmp_path):
    make_space(tmp_path / "open", "--preset", "smollm2")
    values = metadata_load(tmp_path / "open" / "README.md")
    pair = ["HuggingFaceTB/SmolLM2-1.7B-Instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"]
    assert values["models"] == values["preload_from_hub"] == pair
    assert values["suggested_hardware"] == "cpu-basic"
    make_space(tmp_path / "gated", "--preset", "llama-3.1")
    values = metadata_load(tmp_path / "gated" / "README.md")
    assert len(values["models"]) == 2
    assert "preload_from_hub" not in values
    assert values["suggested_hardware"] != "cpu-basic"
    assert "HF_TOKEN" in (tmp_path / "gated" / "README.md").read_text(encoding="utf-8")


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    made = make_space(tmp_path)
    assert made.returncode == 1
    assert "is not empty" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unknown_preset_is_named(tmp_path):
    made = make_space(tmp_path / "space", "--preset", "nothing")
    assert made.returncode == 1
    assert "There is no preset 'nothing'" in made.stderr


def test_the_embedded_pair_answers_from_the_assembled_folder_alone(space):
    options = ["--preset", "stories", "--max-new-tokens", "8", "--message", "Tell me a story."]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-m", "specdec_core", "generate", *options],
        cwd=space,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
