"""Assembles a Hugging Face Space: a folder with exactly the files that it needs, to be pushed as it is.

    python scripts/make_space.py FOLDER                     # the embedded pair, on a free CPU
    python scripts/make_space.py FOLDER --preset smollm2    # a pair from the Hub

Copies what git tracks of the page and the engine, and writes what only a Space has: its requirements and the
front matter of its README. Starts nothing and uploads nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import specdec_core as sd

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("app.py", "LICENSE", "ui", "specdec_core", "presets")
LARGEST_FILE_BYTES = 10_000_000
"""Above it the Hub wants Git LFS."""

GRADIO = "6.31.0"
PYTHON = "3.11"
REQUIREMENTS = """\
# What a Space installs. torch is not the project's own: hardware of the Hub may have none that is newer.
torch>=2.8,<2.12
transformers>=5.17,<6
accelerate>=1.10
bitsandbytes>=0.50
pydantic>=2.10,<3
"""


def make_space(folder: Path, preset: sd.Preset) -> list[str]:
    """Writes the Space's files into `folder`, which must be empty or new; returns their names.

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
    (folder / "README.md").write_text(_readme(preset), encoding="utf-8")
    return sorted([*names, "README.md", "requirements.txt"])


def _tracked_files() -> list[str]:
    """What git tracks of the kept paths; of the embedded pair the models, not the scripts that trained it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *KEPT], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    return [
        name for name in listed if name and not (name.startswith("presets/stories/") and name.endswith(".py"))
    ]


def _readme(preset: sd.Preset) -> str:
    """Front matter, in JSON's notation of strings and lists, which YAML reads too, and a few words."""
    hub_models = [m.model for m in (preset.target, preset.drafter) if m and not Path(m.model).is_dir()]
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
        "suggested_hardware": "cpu-basic" if preset.download_gb < 5 else "l4x1",
        "tags": ["speculative-decoding", "text-generation", "chatbot"],
    }
    if hub_models:
        values["models"] = hub_models
        # What is gated cannot be fetched while the Space is built: the token is not there yet.
        if not preset.gated:
            values["preload_from_hub"] = hub_models
    front = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    needs = [f"the variable `SPECDEC_PRESET` with the value `{preset.name}`"]
    if preset.gated:
        needs.append("the secret `HF_TOKEN`, a token of an account that has accepted the models' licences")
    return (
        f"---\n{front}\n---\n\n# SpecDec Chat\n\nChat with a language model under speculative decoding, and "
        f"see which drafts it kept. This Space shows {preset.title}.\n\n"
        f"In the Space's settings: {', and '.join(needs)}.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="stories", help="the pair that the Space is for")
    arguments = parser.parse_args()
    try:
        presets = sd.load_presets()[0]
        if arguments.preset not in presets:
            raise ValueError(f"There is no preset {arguments.preset!r}; there are {', '.join(presets)}.")
        names = make_space(arguments.folder, presets[arguments.preset])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = sum((arguments.folder / name).stat().st_size for name in names)
    print(f"{len(names)} files, {size / 1e6:.1f} MB in {arguments.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
