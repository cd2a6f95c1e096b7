"""The presets that the page offers: those that ship, one's own, and what is wrong with the broken ones.

Knows the engine's presets; nothing of components.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import specdec_core as sd


@dataclass(frozen=True)
class Presets:
    """`usable` by name; `broken` holds the error of each file that cannot be used."""

    usable: Mapping[str, Any]
    broken: Mapping[str, sd.PresetError] = field(default_factory=dict)

    @classmethod
    def read(cls, own_folder: str | None = None) -> Presets:
        """Those that ship and those in `own_folder`, which win over others of the same name.

        Raises PresetError where a folder cannot be read.
        """
        usable, broken = sd.load_presets()
        if own_folder:
            own_usable, own_broken = sd.load_presets(own_folder)
            shipped = {name: preset for name, preset in usable.items() if name not in own_broken}
            usable = {**shipped, **own_usable}
            broken = {name: error for name, error in broken.items() if name not in own_usable} | own_broken
        return cls(usable, broken)

    def names(self) -> list[str]:
        """In the order in which they are offered, the broken ones last."""
        return [*self.usable, *self.broken]

    def get(self, name: str) -> Any:
        """Raises PresetError for one that is broken or not there."""
        if name in self.broken:
            raise self.broken[name]
        if name not in self.usable:
            raise sd.PresetError(f"There is no preset “{name}”. Choose one of: {', '.join(self.usable)}.")
        return self.usable[name]
