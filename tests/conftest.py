"""Fixtures of all tests; one thread, since two on busy cores wait for each other at every product."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for the apps that tests start

import gc
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from tests.support import llama_cpp_standin
from tests.support.hub_server import HubServer, running_hub
from tests.support.tiny_pair import save_pair


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as fast whatever is not marked as needing time, a browser or a GPU."""
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("slow", "browser", "gpu")):
            item.add_marker(pytest.mark.fast)


@pytest.fixture(autouse=True, scope="module")
def _quick_collections() -> None:
    """Every load and unload collects garbage, among what the module's own tests made: not in all of torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    """Nothing is read from a person's cache folder, or left there."""
    monkeypatch.setenv("SPECDEC_CACHE", str(tmp_path / "specdec-cache"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pair_folders(tmp_path_factory) -> tuple[str, str]:
    """Paths of a small random target and of its drafter."""
    return save_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(pair_folders) -> list[str]:
    """The command line's arguments for that pair."""
    return ["--target", pair_folders[0], "--drafter", pair_folders[1], "--device", "cpu"]


@pytest.fixture(scope="session")
def engine(pair_folders):
    """One loaded pair for all tests that do not unload it."""
    from specdec_core import Engine

    target, drafter = pair_folders
    return Engine.load(target=target, drafter=drafter, device="cpu")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub on this machine, an empty cache, and no token."""
    with running_hub() as server:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # transformers keeps a client, which would go on asking the Hub that it was made for.
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        yield server


@pytest.fixture
def on_the_hub(hub: HubServer, pair_folders, tmp_path):
    """The small pair as two repositories, each in a folder that a test may change."""
    for name, folder in zip(("owner/target", "owner/drafter"), pair_folders, strict=True):
        hub.repositories[name] = Path(shutil.copytree(folder, tmp_path / "served" / name))
    return hub


@pytest.fixture
def llama_cpp(monkeypatch) -> type[llama_cpp_standin.StandIn]:
    """The stand-in for the package xllamacpp, in its place."""
    return llama_cpp_standin.install(monkeypatch)


@pytest.fixture
def impatient(monkeypatch):
    """A client that does not wait between its own retries."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
