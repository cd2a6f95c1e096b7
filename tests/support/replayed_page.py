"""The whole page over a replaying engine, served by this process: for what a model would make unsteady."""

from collections.abc import Iterator
from contextlib import contextmanager

from specdec_ui.page import build_page, launch_options
from specdec_ui.state.holder import EngineHolder
from tests.support.replay import ReplayEngine, ReplayPreset, replay_presets


@contextmanager
def replayed_page(engine: ReplayEngine) -> Iterator[str]:
    """The address of a page on which `engine` is loaded."""
    holder = EngineHolder(lambda preset, on_progress: (engine, None))
    holder.load(ReplayPreset("replay"), lambda message, fraction: None)
    page = build_page(holder, replay_presets("replay")).queue(default_concurrency_limit=4)
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options()
    )
    try:
        yield address.rstrip("/")
    finally:
        page.close(verbose=False)
