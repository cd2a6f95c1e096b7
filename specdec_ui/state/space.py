"""What only a Hugging Face Space has: ZeroGPU, logins, and a file that names the pair it is for.

Knows no models.
"""

from __future__ import annotations

import os
from pathlib import Path

PRESET_FILE = "space-preset.txt"
"""Written by scripts/make_space.py, since a Space's front matter cannot set a variable."""


def on_zero_gpu() -> bool:
    """Whether GPUs are lent to this Space for a call at a time; the platform says so in a variable."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def offers_login() -> bool:
    """Whether visitors may log in with their Hugging Face account: the Space was made with hf_oauth.

    Elsewhere Gradio would log everybody in as whoever the machine belongs to.
    """
    return os.environ.get("SYSTEM") == "spaces" and bool(os.environ.get("OAUTH_CLIENT_ID"))


def fixed_preset() -> str | None:
    """The preset that the operator has fixed: SPECDEC_PRESET, else what the Space was made for.

    On ZeroGPU there always is one, for models are put on the GPU before the page is up, or never.
    """
    if name := os.environ.get("SPECDEC_PRESET"):
        return name
    file = Path(__file__).resolve().parents[2] / PRESET_FILE
    if file.is_file():
        return file.read_text(encoding="utf-8").strip() or None
    return "stories" if on_zero_gpu() else None
