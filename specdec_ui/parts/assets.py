"""Static files of the page, and the format of its views' values. Knows nothing of the views' contents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import specdec_core as sd

STATIC = Path(__file__).parent.parent / "static"
STYLESHEETS = [
    STATIC / f"{name}.css"
    for name in ("variables", "style", "chat", "tokens", "compare", "pair_check", "traces")
]
"""Stylesheets in the order of the cascade: variables, shared looks, then tabs and their views."""
FAVICON = STATIC / "favicon.png"


def sources(data: Mapping[str, Any]) -> str:
    """Return a script that defines all modules for `view_script`: the `js_on_load` of one static component.

    Modules import `data` as the default of `./data.js`.
    """
    files = {path.relative_to(STATIC).as_posix(): path.read_text("utf-8") for path in STATIC.rglob("*.js")}
    loader = files.pop("modules.js")
    files["data.js"] = f"export default {sd.to_json(data)};"
    return f"window.specdecFiles = {json.dumps(files)};\n{loader}"


def view_script(module: str) -> str:
    """Return a `js_on_load` that mounts a view: the default export of a module of specdec_ui/static.

    Short, because Gradio compares all properties of a component, its script among them, at every change of
    its value, and a view that streams changes 30 times a second.
    """
    return f"""
const start = async () => {{
  const module = await window.specdecImport({json.dumps(module)});
  module.default({{ element, props, trigger, watch }});
}};
if (window.specdecImport) start();
else window.addEventListener("specdec:modules", start, {{ once: true }});
"""


def json_line(**fields: Any) -> str:
    """Return one line of a view's value as JSON.

    Pure ASCII without "<": a lone surrogate cannot break the transport, and Gradio, which treats values as
    HTML, never sees markup.
    """
    return sd.to_json(fields, compact=True).replace("<", "\\u003c") + "\n"
