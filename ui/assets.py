"""The page's own files, and text handed to its views. Knows nothing of what the views show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent / "static"
STYLESHEETS = [STATIC / name for name in ("style.css", "conversation.css", "tokens.css", "compare.css")]
FAVICON = STATIC / "favicon.png"


def script(*names: str) -> str:
    """The named files of ui/static one after the other, for a component's `js_on_load`."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def json_line(**fields: Any) -> str:
    """One line of a view's value.

    Pure ASCII without "<": half a surrogate pair cannot break the transport, and no markup ever appears in
    what Gradio handles as HTML.
    """
    return json.dumps(fields, separators=(",", ":")).replace("<", "\\u003c") + "\n"
