"""The page's own files, and text handed to its views. Knows nothing of what the views show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

STATIC = Path(__file__).parent.parent / "static"
STYLESHEETS = [STATIC / name for name in ("style.css", "conversation.css", "tokens.css", "compare.css")]
FAVICON = STATIC / "favicon.png"


def script(*names: str) -> str:
    """The named files of specdec_ui/static one after the other, for a component's `js_on_load`."""
    return "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)


def sources() -> str:
    """Every script, for the `js_on_load` of one component that never changes; for `view_script` to find."""
    files = {path.relative_to(STATIC).as_posix(): path.read_text("utf-8") for path in STATIC.rglob("*.js")}
    return f"window.specdecFiles = {json.dumps(files)}; window.dispatchEvent(new Event('specdec:files'));\n"


def view_script(*names: str) -> str:
    """What `script` does, in few bytes: Gradio compares all of a component's properties, its script among
    them, at every change of its value, which a view that streams has 30 times a second.
    """
    return f"""
const start = () => {{
  const text = {json.dumps(names)}.map((name) => window.specdecFiles[name]).join("\\n");
  Function("element", "props", "trigger", "watch", text)(element, props, trigger, watch);
}};
if (window.specdecFiles) start();
else window.addEventListener("specdec:files", start, {{ once: true }});
"""


def json_line(**fields: Any) -> str:
    """One line of a view's value.

    Pure ASCII without "<": half a surrogate pair cannot break the transport, and no markup ever appears in
    what Gradio handles as HTML.
    """
    return json.dumps(fields, separators=(",", ":")).replace("<", "\\u003c") + "\n"
