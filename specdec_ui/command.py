"""The command `specdec ui`, which app.py runs too: read the environment, load a fixed preset, serve the page.

Imports Gradio and torch only when it runs, so that the other commands start quickly.
"""

from __future__ import annotations

import argparse
import os
import sys

CONCURRENT_ANSWERS = 16
ZERO_GPU_QUEUE = 64
"""Longest queue on ZeroGPU; Gradio's default there is 1."""


def register(commands: argparse._SubParsersAction) -> None:
    """Add the parser of `ui`. Entry point of the group `specdec.commands`."""
    parser = commands.add_parser("ui", help="serve the page and print its address")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1, or GRADIO_SERVER_NAME)")
    parser.add_argument(
        "--port", type=_port, help="port to listen on (default 7860 or the next, or GRADIO_SERVER_PORT)"
    )
    parser.set_defaults(run=lambda arguments: serve(arguments.host, arguments.port))


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a whole number from 1 to 65535, not {text!r}")
    return int(text)


def serve(host: str | None = None, port: int | None = None) -> int:
    """Serve the page until an interrupt. Return the exit status: 1 if a preset could not be loaded."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from .state import space

    if space.on_zero_gpu():
        from .state import zero_gpu  # before anything that imports torch

    import specdec_core as sd

    from .page import Operator, build_page, launch_options
    from .state.holder import EngineHolder, import_engine
    from .state.presets import Presets

    operator = Operator(space.fixed_preset(), os.environ.get("SPECDEC_LOCK") == "1")
    holder = EngineHolder(zero_gpu.load) if space.on_zero_gpu() else EngineHolder()
    try:
        presets = Presets.read()
        if operator.preset is not None:
            holder.load(
                presets.get(operator.preset), lambda message, fraction: print(message, file=sys.stderr)
            )
    except sd.SpecDecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    page = build_page(holder, presets, operator)
    queue_size = ZERO_GPU_QUEUE if space.on_zero_gpu() else None
    page.queue(default_concurrency_limit=CONCURRENT_ANSWERS, max_size=queue_size)
    # The Hub switches rendering on the server on, which the page's own scripts do not support.
    page.launch(
        server_name=host, server_port=port, prevent_thread_lock=True, ssr_mode=False, **launch_options()
    )
    # Imported while the person reads the page, so that the first Load is faster.
    import_engine()
    page.block_thread()
    return 0
