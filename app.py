"""Starts the page. What it does is in ui/, what answers is in specdec_core/.

Environment: GRADIO_SERVER_NAME and GRADIO_SERVER_PORT (where it listens), SPECDEC_PRESET (load this preset at
start and let nobody change it), SPECDEC_LOCK=1 (once a preset is loaded, nobody may replace it),
SPECDEC_PRESETS (a folder with presets of one's own beside those that ship). A Space's own are in ui/space.py.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from ui import space

if space.on_zero_gpu():
    from ui import zero_gpu  # before anything that imports torch

import specdec_core as sd
from ui.holder import EngineHolder, import_engine
from ui.page import Operator, build_page, launch_options
from ui.presets import Presets

CONCURRENT_ANSWERS = 16
MOST_WAITING_ON_ZERO_GPU = 64
"""Gradio's own limit there is 1."""


def main() -> int:
    operator = Operator(space.fixed_preset(), os.environ.get("SPECDEC_LOCK") == "1")
    holder = EngineHolder(zero_gpu.load) if space.on_zero_gpu() else EngineHolder()
    try:
        presets = Presets.read(os.environ.get("SPECDEC_PRESETS"))
        if operator.preset is not None:
            holder.load(
                presets.get(operator.preset), lambda message, fraction: print(message, file=sys.stderr)
            )
    except sd.SpecDecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = build_page(holder, presets, operator)
    most_waiting = MOST_WAITING_ON_ZERO_GPU if space.on_zero_gpu() else None
    page.queue(default_concurrency_limit=CONCURRENT_ANSWERS, max_size=most_waiting)
    # The Hub would switch rendering on the server on, where the page's own scripts have never run.
    page.launch(prevent_thread_lock=True, ssr_mode=False, **launch_options())
    # The page is up; what the first Load needs is imported while the person reads it.
    import_engine()
    page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
