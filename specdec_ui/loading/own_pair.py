"""A checked pair as a preset of one's own: to be loaded, and as the TOML to keep it.

Knows the engine's presets; nothing of components.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import specdec_core as sd

LICENSE = "see the pages of both models"


@dataclass(frozen=True)
class OwnPair:
    """What was checked: Hub ids or folders, whether padding ids are cut off, the precision on a GPU, and
    branches, tags or commits of Hub models (None is the main branch).
    """

    target: str
    drafter: str
    trim: bool = False
    nf4: bool = False
    target_revision: str | None = None
    drafter_revision: str | None = None

    @property
    def vocab_padding(self) -> str:
        return "trim" if self.trim else "refuse"

    @property
    def title(self) -> str:
        """Both models by the last part of their names, so that no path of the machine is shown to others."""
        return f"{_last(self.target)} drafted by {_last(self.drafter)}"

    @property
    def file_stem(self) -> str:
        return re.sub(r"[^a-z0-9.]+", "-", f"{_last(self.target)}-{_last(self.drafter)}".lower()).strip("-.")

    def preset(self, taken: Any = None) -> sd.Preset:
        """The pair as a preset; `taken` is the loaded one, whose name it gets only if it is the same pair."""
        quantization = "nf4" if self.nf4 else "none"
        name = self.title
        if taken is not None and taken.name == name and not self._is(taken):
            name += " (another)"
        return sd.Preset(
            name=name,
            title=self.title,
            description=f"A pair of your own: {self.title}.",
            license=LICENSE,
            vocab_padding=self.vocab_padding,
            target={
                "model": self.target,
                "revision": self.target_revision,
                "quantization": quantization,
            },
            drafter={
                "model": self.drafter,
                "revision": self.drafter_revision,
                "quantization": quantization,
            },
            settings={"gamma": "auto"},
        )

    def toml(self) -> str:
        """A file for presets/, or for the folder that SPECDEC_PRESETS names."""
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
            if _is_hub_id(model):
                lines.append(f"model = {_quoted(model)}")
                if revision is not None:
                    lines.append(f"revision = {_quoted(revision)}")
            else:
                kept = f"./{self.file_stem}/{role}"
                lines += [
                    f"# Copy the folder {model} to {kept} beside this file.",
                    f"model = {_quoted(kept)}",
                ]
            if self.nf4:
                lines.append('quantization = "nf4"')
        return "\n".join([*lines, "", "[settings]", 'gamma = "auto"', ""])

    def _is(self, preset: Any) -> bool:
        own = self.preset()
        return (preset.target, preset.drafter, preset.vocab_padding) == (
            own.target,
            own.drafter,
            own.vocab_padding,
        )


def _is_hub_id(model: str) -> bool:
    """By its form, as the gate reads names that are no folder on this machine."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model) is not None and not PurePath(model).is_absolute()


def _last(model: str) -> str:
    return PurePath(model.replace("\\", "/").rstrip("/") or "model").name or "model"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    return json.dumps(text, ensure_ascii=False)
