"""Presets on the page: those that ship, those of the operator's folder, and the errors of broken files.

Knows the engine's presets; nothing of components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import specdec_core as sd


@dataclass(frozen=True)
class Presets:
    """Presets by name: `usable` ones, and the error of each `broken` file."""

    usable: Mapping[str, sd.Preset]
    broken: Mapping[str, sd.PresetError] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Presets:
        """Read the presets that ship and those of the operator's folder, as the engine does.

        Raises PresetError where a folder cannot be read.
        """
        return cls(*sd.load_presets())

    def names(self) -> list[str]:
        """Return all names in the order of the page, those of broken files last."""
        return [*self.usable, *self.broken]

    def get(self, name: str) -> sd.Preset:
        """Return a preset by name. Raises PresetError if its file is broken or missing."""
        if name in self.broken:
            raise self.broken[name]
        if name not in self.usable:
            raise sd.PresetError(f"There is no preset “{name}”. Choose one of: {', '.join(self.usable)}.")
        return self.usable[name]
