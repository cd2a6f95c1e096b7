"""A checked pair as a preset: to load it, and as a TOML file to keep it.

Knows the engine's presets; nothing of components.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePath

import specdec_core as sd

_HUB_ID = r"[\w-][\w.-]*/[\w-][\w.-]*"
LICENSE = "see the pages of both models"


@dataclass(frozen=True)
class OwnPair:
    """A pair of Hub ids or folders. `trim` cuts padding ids off; `nf4` is the precision on a GPU; revisions
    are branches, tags or commits of Hub models, None the main branch.
    """

    target: str
    drafter: str
    trim: bool = False
    nf4: bool = False
    target_revision: str | None = None
    drafter_revision: str | None = None

    @property
    def vocab_padding(self) -> sd.VocabPadding:
        """The preset's `vocab_padding`."""
        return "trim" if self.trim else "refuse"

    @property
    def title(self) -> str:
        """Last parts of both models' names: other visitors see no path of the machine."""
        return f"{_last(self.target)} drafted by {_last(self.drafter)}"

    @property
    def file_stem(self) -> str:
        """Name of the TOML file, without its suffix."""
        return re.sub(r"[^a-z0-9.]+", "-", f"{_last(self.target)}-{_last(self.drafter)}".lower()).strip("-.")

    def preset(self, loaded: sd.Preset | None = None) -> sd.Preset:
        """Return the pair as a preset. Its name differs from that of the `loaded` preset, unless that is the
        same pair.
        """
        quantization = "nf4" if self.nf4 else "none"
        name = self.title
        if loaded is not None and loaded.name == name and not self._is(loaded):
            name += " (another)"
        return sd.Preset.model_validate(
            {
                "name": name,
                "title": self.title,
                "description": f"A pair of your own: {self.title}.",
                "license": LICENSE,
                "vocab_padding": self.vocab_padding,
                "target": {
                    "model": self.target,
                    "revision": self.target_revision,
                    "quantization": quantization,
                },
                "drafter": {
                    "model": self.drafter,
                    "revision": self.drafter_revision,
                    "quantization": quantization,
                },
                "settings": {"gamma": "auto"},
            }
        )

    def toml(self) -> str:
        """Return the preset as a file for presets/ or the folder in SPECDEC_PRESETS."""
        lines = [
            f"# Save as {self.file_stem}.toml in presets/, or in the folder that SPECDEC_PRESETS names.",
            f"title = {_quoted(self.title)}",
            f"description = {_quoted(f'{self.title}.')}",
            f"license = {_quoted(LICENSE)}",
        ]
        if self.trim:
            lines.append('vocab_padding = "trim"')
        models = (
            ("target", self.target, self.target_revision),
            ("drafter", self.drafter, self.drafter_revision),
        )
        for role, model, revision in models:
            lines += ["", f"[{role}]"]
            if _stays(model):
                lines.append(f"model = {_quoted(model)}")
                if revision is not None:
                    lines.append(f"revision = {_quoted(revision)}")
            else:
                kind, suffix = ("file", ".gguf") if model.endswith(".gguf") else ("folder", "")
                copy = f"./{self.file_stem}/{role}{suffix}"
                lines += [
                    f"# Copy the {kind} {model} to {copy} beside this file.",
                    f"model = {_quoted(copy)}",
                ]
            if self.nf4:
                lines.append('quantization = "nf4"')
        return "\n".join([*lines, "", "[settings]", 'gamma = "auto"', ""])

    def _is(self, preset: sd.Preset) -> bool:
        own = self.preset()
        return (preset.target, preset.drafter, preset.vocab_padding) == (
            own.target,
            own.drafter,
            own.vocab_padding,
        )


def _stays(model: str) -> bool:
    """Return True for a name that is the same on other machines: a Hub id, a GGUF file on the Hub or in a
    Python package.
    """
    if model.endswith(".gguf"):
        return re.match(rf"package:\w+/|{_HUB_ID}:", model) is not None
    return re.fullmatch(_HUB_ID, model) is not None and not PurePath(model).is_absolute()


def _last(model: str) -> str:
    return PurePath(model.replace("\\", "/").rstrip("/") or "model").name or "model"


def _quoted(text: str) -> str:
    """Return a TOML basic string."""
    return json.dumps(text, ensure_ascii=False)
