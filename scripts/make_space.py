"""Assembly of a Hugging Face Space: a folder with exactly the files that it needs, to be pushed as it is.

    python scripts/make_space.py FOLDER                     # the embedded pair, on a free CPU
    python scripts/make_space.py FOLDER --preset smollm2    # a pair from the Hub
    python scripts/make_space.py FOLDER --preset llama-3.2 --hardware zero-a10g    # on ZeroGPU
    python scripts/make_space.py FOLDER --start             # and run it here as the Hub would, to see it work

Copies what git tracks of the page and the engine, and writes what only a Space has: its requirements, the
name of its preset, and the front matter of its README. Uploads nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from huggingface_hub import SpaceHardware

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import specdec_core as sd
from specdec_ui.state.space import PRESET_FILE

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("app.py", "LICENSE", "specdec_ui", "specdec_core", "presets")
LARGEST_FILE_BYTES = 10_000_000
"""Above it the Hub wants Git LFS."""

GRADIO = "6.31.0"
PYTHON = "3.12"
"""ZeroGPU has 3.10 and 3.12; the engine needs 3.11."""
FREE_HARDWARE_GB = 5
"""The largest download whose pair a free CPU (16 GB) holds in float32."""
REQUIREMENTS = """\
# What a Space installs beside Gradio, which the Hub brings along as it does the package spaces. torch is not
# the project's own: its exact version is one that the hardware has, ZeroGPU among them.
torch>=2.8,<2.12
transformers>=5.17,<6
accelerate>=1.10
bitsandbytes>=0.50
pydantic>=2.10,<3
onnxruntime>=1.32
onnx>=1.19
gguf>=0.17
"""


def make_space(
    folder: Path, preset: sd.Preset, hardware: str | None = None, login: bool = False
) -> list[str]:
    """Writes the Space's files into `folder`, which must be empty or new; returns their names. With `login`
    visitors may log in, for pair checks of the gated models that they have access to.

    Raises ValueError where the folder holds something or a file is too large for plain Git.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty. Name a new folder, or empty it.")
    names = _tracked_files()
    for name in names:
        size = (ROOT / name).stat().st_size
        if size > LARGEST_FILE_BYTES:
            raise ValueError(f"{name} has {size:,} bytes; a file of a Space may have {LARGEST_FILE_BYTES:,}.")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    (folder / "requirements.txt").write_text(REQUIREMENTS, encoding="utf-8")
    (folder / PRESET_FILE).write_text(f"{preset.name}\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(preset, hardware, login), encoding="utf-8")
    return sorted([*names, "README.md", PRESET_FILE, "requirements.txt"])


def start(folder: Path) -> int:
    """Runs the Space here as the Hub would: a fresh virtual environment beside the folder, with nothing but
    Gradio and the Space's own requirements, and app.py started in the folder. Returns its exit status.
    """
    environment = folder.with_name(f"{folder.name}-venv")
    python = _python()
    print(f"Making {environment} with {python}", flush=True)
    subprocess.run([python, "-m", "venv", "--clear", environment], check=True)
    own = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    packages = [f"gradio[oauth]=={GRADIO}", "spaces", "-r", str(folder / "requirements.txt")]
    subprocess.run([own, "-m", "pip", "install", "--quiet", *packages], check=True)
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([own, "app.py"], cwd=folder, env=variables).returncode


def _python() -> str:
    """The Space's Python where this machine has it, else this one."""
    own = shutil.which(f"python{PYTHON}")
    if own and subprocess.run([own, "-c", ""], capture_output=True).returncode == 0:
        return own
    return sys.executable


def _tracked_files() -> list[str]:
    """Return the files that git tracks below the kept paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *KEPT], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return [name for name in listed if name]


def _readme(preset: sd.Preset, hardware: str | None, login: bool) -> str:
    """Front matter, in JSON's notation of strings and lists, which YAML reads too, and a few words."""
    models = [m for m in (preset.target, preset.drafter) if m and not Path(m.model).exists()]
    # A Space installs no package of weights; a file on the Hub is named after its repository.
    hub_models = [(m.otherwise or m.model).partition(":")[0] for m in models]
    values = {
        "title": "SpecDec Chat",
        "emoji": "⚡",
        "colorFrom": "indigo",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "python_version": PYTHON,
        "app_file": "app.py",
        "license": "mit",
        "short_description": "Speculative decoding, every draft shown",
        "suggested_hardware": hardware or ("cpu-basic" if preset.download_gb < FREE_HARDWARE_GB else "l4x1"),
        "tags": ["speculative-decoding", "text-generation", "chatbot"],
    }
    if hub_models:
        values["models"] = hub_models
        # The weights are read, and quantized, before the page is up.
        values["startup_duration_timeout"] = "1h"
        # What is gated cannot be fetched while the Space is built: the token is not there yet.
        if not preset.gated:
            values["preload_from_hub"] = hub_models
    if login:
        values |= {"hf_oauth": True, "hf_oauth_scopes": ["gated-repos"]}
    front = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    text = (
        f"---\n{front}\n---\n\n# SpecDec Chat\n\nChat with a language model under speculative decoding, and "
        f"see which drafts it kept. This Space shows {preset.title}; the variable `SPECDEC_PRESET` in its "
        "settings names another preset.\n"
    )
    if preset.gated:
        text += (
            "\nThe models are gated. Put a token of an account that has accepted their licences into the "
            "Space's settings, as the secret `HF_TOKEN`; without it the Space does not start.\n"
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="Assemble a Hugging Face Space in a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="stories", help="the pair that the Space is for")
    parser.add_argument(
        "--hardware",
        choices=[flavor.value for flavor in SpaceHardware],
        metavar="FLAVOR",
        help="what to suggest in place of cpu-basic or l4x1; zero-a10g is ZeroGPU",
    )
    parser.add_argument("--login", action="store_true", help="visitors may log in, to check gated models")
    parser.add_argument("--start", action="store_true", help="run it here, in a fresh virtual environment")
    arguments = parser.parse_args()
    try:
        presets = sd.load_presets()[0]
        if arguments.preset not in presets:
            raise ValueError(f"There is no preset {arguments.preset!r}; there are {', '.join(presets)}.")
        preset = presets[arguments.preset]
        names = make_space(arguments.folder, preset, arguments.hardware, arguments.login)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum((arguments.folder / name).stat().st_size for name in names)
    print(f"{len(names)} files, {size / 1e6:.1f} MB in {arguments.folder}", flush=True)
    return start(arguments.folder.resolve()) if arguments.start else 0


if __name__ == "__main__":
    sys.exit(main())
