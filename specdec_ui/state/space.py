"""Features of Hugging Face Spaces: ZeroGPU, logins, and a file that names the Space's preset.

Knows no models.
"""

from __future__ import annotations

import os
from pathlib import Path

PRESET_FILE = "space-preset.txt"
"""File that scripts/make_space.py writes: a Space's front matter cannot set a variable."""


def on_zero_gpu() -> bool:
    """Return True on a Space with ZeroGPU, which the platform marks with a variable."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def offers_login() -> bool:
    """Return True on a Space with hf_oauth, where visitors log in with their Hugging Face accounts.

    Elsewhere Gradio's login would give every visitor the account of the machine's owner.
    """
    return os.environ.get("SYSTEM") == "spaces" and bool(os.environ.get("OAUTH_CLIENT_ID"))


def fixed_preset() -> str | None:
    """Return the name of the operator's preset: SPECDEC_PRESET, else the Space's file. None if not fixed.

    ZeroGPU always has one: models are moved to the GPU before the page is up, or never.
    """
    if name := os.environ.get("SPECDEC_PRESET"):
        return name
    file = Path(__file__).resolve().parents[2] / PRESET_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8").strip() or None
    return "stories" if on_zero_gpu() else None
