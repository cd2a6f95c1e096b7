"""Starts the page. What it does is in ui/, what answers is in specdec_core/.

Environment: GRADIO_SERVER_NAME and GRADIO_SERVER_PORT (where it listens), SPECDEC_PRESET (load this preset at
start and let nobody change it), SPECDEC_LOCK=1 (once a preset is loaded, nobody may replace it),
SPECDEC_PRESETS (a folder with presets of one's own beside those that ship).
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import specdec_core as sd
from ui.holder import EngineHolder, import_engine
from ui.page import Operator, build_page, launch_options
from ui.presets import Presets

CONCURRENT_ANSWERS = 16


def main() -> int:
    operator = Operator(os.environ.get("SPECDEC_PRESET") or None, os.environ.get("SPECDEC_LOCK") == "1")
    holder = EngineHolder()
    try:
        presets = Presets.read(os.environ.get("SPECDEC_PRESETS"))
        if operator.preset is not None:
            holder.load(
                presets.get(operator.preset), lambda message, fraction: print(message, file=sys.stderr)
            )
    except sd.SpecDecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = build_page(holder, presets, operator).queue(default_concurrency_limit=CONCURRENT_ANSWERS)
    page.launch(prevent_thread_lock=True, **launch_options())
    # The page is up; what the first Load needs is imported while the person reads it.
    import_engine()
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
