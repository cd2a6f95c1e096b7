"""The whole page over a replaying engine, served by this process: for tests that a model makes unsteady."""

from collections.abc import Iterator
from contextlib import contextmanager

from specdec_ui.page import build_page, launch_options
from tests.support.replay import ReplayEngine, loaded_holder, replay_presets


@contextmanager
def replayed_page(engine: ReplayEngine) -> Iterator[str]:
    """Yield the address of a page on which `engine` is loaded."""
    page = build_page(loaded_holder(engine), replay_presets("replay")).queue(default_concurrency_limit=4)
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options()
    )
    try:
        yield address.rstrip("/")
    finally:
        page.close(verbose=False)
