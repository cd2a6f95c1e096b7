"""Values in a model's JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def values_of(folder: str, name: str) -> Mapping[str, Any]:
    """Return the values in a file; none if it is missing, or damaged, which transformers ignores."""
    try:
        values = json.loads(Path(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, Mapping) else {}
