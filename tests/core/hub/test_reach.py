"""The Hub's reachability is asked once, with a limit, before its client begins its own retries."""

import socket
import time
from contextlib import contextmanager

import pytest
from huggingface_hub import constants

import specdec_core as sd
from specdec_core.hub import reach
from specdec_core.hub.reach import hub_is_reachable
from tests.support.hub_pair import DRAFTER, TARGET, load, refusal


@contextmanager
def _silent_hub(monkeypatch):
    """A Hub that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("transformers.utils.hub._hf_api", None, raising=False)
        monkeypatch.setattr(reach, "PROBE_S", 0.3)
        yield server


@pytest.fixture
def silent(monkeypatch):
    with _silent_hub(monkeypatch) as server:
        yield server


@pytest.fixture
def closed(monkeypatch):
    """The address of a Hub that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")


def test_a_hub_that_answers_is_reachable_whatever_it_says(hub):
    assert hub_is_reachable()
    hub.refusals["owner/name"] = (503, "")
    assert hub_is_reachable()


def test_a_hub_that_refuses_connections_is_not(hub, closed):
    assert not hub_is_reachable()


def test_a_silent_hub_is_given_up_soon_and_not_asked_again_at_once(hub, silent):
    assert [hub_is_reachable(), hub_is_reachable()] == [False, False]
    silent.setblocking(False)
    silent.accept()[0].close()
    with pytest.raises(BlockingIOError):
        silent.accept()


def test_a_load_from_a_silent_hub_ends_with_a_message(hub, silent):
    assert "has not been downloaded" in refusal()
    assert "cannot be reached" in refusal()


def test_a_downloaded_pair_is_loaded_while_the_hub_is_silent(on_the_hub, monkeypatch):
    load().unload()
    with _silent_hub(monkeypatch):
        began = time.monotonic()
        assert load().generate("Once", sd.Settings(max_new_tokens=2)).token_ids
    assert time.monotonic() - began < 20


def test_a_load_says_whom_it_asks(on_the_hub):
    steps = []
    load(on_progress=lambda message, fraction: steps.append(message)).unload()
    assert steps[0].endswith(f"of {TARGET} and {DRAFTER} on {on_the_hub.address}")
