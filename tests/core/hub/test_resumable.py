"""Interrupted downloads (network, cancellation, signal): the next one resumes them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

import specdec_core as sd
from specdec_core.errors import LoadError
from specdec_core.hub.download import fetch, plan_download
from specdec_core.hub.resumable import fetch_blob
from tests.support.hub_pair import TARGET, downloaded, load, parts, refusal
from tests.support.hub_server import sum_of

pytestmark = pytest.mark.slow

HI = [{"role": "user", "content": "Once upon a time"}]
ROOT = Path(__file__).parents[3]


def test_a_connection_that_breaks_once_is_taken_up_where_it_broke(on_the_hub, impatient):
    on_the_hub.cuts["model.safetensors"] = [40_000]
    assert load().generate(HI, sd.Settings(max_new_tokens=4, seed=1)).token_ids
    assert on_the_hub.ranges == ["bytes=40000-"]


def test_a_download_that_breaks_off_says_how_far_it_came_and_the_next_one_goes_on(on_the_hub, impatient):
    on_the_hub.cuts["model.safetensors"] = [40_000, *[0] * 12]
    message = refusal()
    assert f"The download of {TARGET} broke off after 0.0 MB of 0." in message
    assert "Load again to go on" in message
    assert parts() == [40_000]
    on_the_hub.cuts.clear()
    on_the_hub.requested.clear()
    on_the_hub.ranges.clear()
    assert load().info.target == TARGET
    assert on_the_hub.ranges == ["bytes=40000-"]
    # Its head and its body, of the drafter; the target's is here.
    assert on_the_hub.requested.count("generation_config.json") == 2
    assert parts() == []


def test_a_hub_that_falls_silent_is_not_waited_for_for_ever(on_the_hub, impatient, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    on_the_hub.cuts["model.safetensors"] = [30_000, *[0] * 12]
    on_the_hub.stalled.add("model.safetensors")
    assert "broke off after" in refusal()


def test_a_failed_load_leaves_the_pair_before_it_serving(on_the_hub, engine, impatient):
    on_the_hub.cuts["model.safetensors"] = [0] * 12
    settings = sd.Settings(max_new_tokens=8, seed=1)
    before = engine.generate(HI, settings).token_ids
    refusal()
    assert engine.generate(HI, settings).token_ids == before


def test_a_download_that_is_cancelled_is_kept_and_the_next_one_goes_on(on_the_hub, monkeypatch):
    monkeypatch.setattr("specdec_core.hub.download.REPORT_INTERVAL_S", 0)
    on_the_hub.cuts["model.safetensors"] = [40_000]
    on_the_hub.stalled.add("model.safetensors")
    cancel = threading.Event()

    def on_progress(message: str, share: float | None) -> None:
        if message.startswith("Downloading") and parts() == [40_000]:
            cancel.set()

    with pytest.raises(sd.LoadCancelledError, match="What was downloaded is kept"):
        load(on_progress=on_progress, cancel=cancel)
    assert parts() == [40_000]
    on_the_hub.released.set()
    assert load().info.target == TARGET
    assert "bytes=40000-" in on_the_hub.ranges
    assert downloaded(TARGET) == (on_the_hub.repositories[TARGET] / "model.safetensors").read_bytes()
    assert parts() == []


def test_what_a_progress_function_raises_ends_a_download_and_comes_out_as_it_is(on_the_hub):
    def on_progress(message: str, share: float | None) -> None:
        if message.startswith("Downloading"):
            raise ConnectionError("the page that asked is gone")

    with pytest.raises(ConnectionError, match="the page that asked is gone") as error:
        load(on_progress=on_progress)
    assert error.value is not None  # keeps the traceback alive, as a page may: it must not keep a lock
    assert load().info.target == TARGET


def test_a_file_that_another_process_is_downloading_is_waited_for_and_the_wait_can_be_cancelled(
    on_the_hub, monkeypatch
):
    monkeypatch.setattr("specdec_core.hub.download.REPORT_INTERVAL_S", 0)
    weights = on_the_hub.repositories[TARGET] / "model.safetensors"
    lock = Path(constants.HF_HUB_CACHE, ".locks", "models--owner--target", f"{sum_of(weights)}.lock")
    lock.parent.mkdir(parents=True)
    cancel, messages = threading.Event(), []

    def on_progress(message: str, share: float | None) -> None:
        messages.append(message)
        if sum(message.startswith("Downloading") for message in messages) > 3:
            cancel.set()

    with FileLock(lock), pytest.raises(sd.LoadCancelledError):
        load(on_progress=on_progress, cancel=cancel)
    assert "model.safetensors" not in on_the_hub.requested
    assert load().info.target == TARGET


def test_what_another_download_left_damaged_is_noticed_and_fetched_anew(on_the_hub):
    plan = plan_download(TARGET)
    weights = next(file for file in plan.missing if file.name == "model.safetensors")
    blobs = Path(constants.HF_HUB_CACHE, "models--owner--target", "blobs")
    blobs.mkdir(parents=True, exist_ok=True)
    for damage in (b"x" * 1000, b"x" * weights.size_bytes, b"x" * (weights.size_bytes + 7)):
        blobs.joinpath(f"{weights.sha256}.part").write_bytes(damage)
        fetch(plan, lambda count: None)
        assert downloaded(TARGET) == (on_the_hub.repositories[TARGET] / "model.safetensors").read_bytes()
        shutil.rmtree(blobs.parent)
        blobs.mkdir(parents=True)


def test_weights_that_are_not_what_the_hub_lists_are_refused_and_not_kept(on_the_hub):
    plan = plan_download(TARGET)
    weights = on_the_hub.repositories[TARGET] / "model.safetensors"
    body = weights.read_bytes()
    weights.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    with pytest.raises(LoadError, match=r"model\.safetensors of owner/target arrived damaged"):
        fetch(plan, lambda count: None)
    assert parts() == [0]


def test_a_server_that_knows_no_ranges_sends_the_file_anew(on_the_hub, impatient):
    on_the_hub.ignores_ranges = True
    on_the_hub.cuts["model.safetensors"] = [40_000]
    assert load().info.target == TARGET
    assert downloaded(TARGET) == (on_the_hub.repositories[TARGET] / "model.safetensors").read_bytes()


def test_room_on_the_disk_is_asked_for_what_is_left_of_a_download(on_the_hub, impatient, monkeypatch):
    on_the_hub.cuts["model.safetensors"] = [40_000, *[0] * 12]
    refusal()
    left = plan_download(TARGET)
    assert left.remaining_bytes == left.size_bytes - 40_000


def test_parts_that_nobody_came_back_for_are_removed_in_time(on_the_hub):
    blobs = Path(constants.HF_HUB_CACHE, "models--owner--target", "blobs")
    blobs.mkdir(parents=True)
    for name, age_s in (("old.part", 15 * 24 * 3600), ("young.part", 3600), ("killed.1234.incomplete", 0)):
        blobs.joinpath(name).write_bytes(b"x")
        os.utime(blobs / name, (time.time() - age_s,) * 2)
    load()
    assert [path.name for path in blobs.iterdir() if "." in path.name] == ["young.part"]


def test_a_process_killed_in_the_middle_is_gone_on_from_and_nothing_is_corrupt_or_locked(on_the_hub):
    on_the_hub.cuts["model.safetensors"] = [40_000]
    on_the_hub.stalled.add("model.safetensors")
    code = """
import specdec_core as sd
from specdec_core.hub import download
download.REPORT_INTERVAL_S = 0
sd.Engine.load(target="owner/target", device="cpu", on_progress=lambda text, share: print(text, flush=True))
"""
    environment = {
        "HF_ENDPOINT": on_the_hub.address,
        "HF_HUB_CACHE": constants.HF_HUB_CACHE,
        "NO_PROXY": "127.0.0.1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE
    ) as process:
        for _ in process.stdout:
            if parts() == [40_000]:
                break
        process.send_signal(signal.SIGKILL)
    assert parts() == [40_000]
    on_the_hub.released.set()
    assert load().generate(HI, sd.Settings(max_new_tokens=4, seed=1)).token_ids
    assert on_the_hub.ranges == ["bytes=40000-"]
    assert downloaded(TARGET) == (on_the_hub.repositories[TARGET] / "model.safetensors").read_bytes()
    assert parts() == []


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (503, 6)])
def test_only_an_answer_that_may_change_is_asked_for_again(on_the_hub, impatient, status, attempts):
    plan = plan_download(TARGET)
    weights = next(file for file in plan.missing if file.name == "model.safetensors")
    on_the_hub.refusals[TARGET] = (status, "")
    with pytest.raises(HfHubHTTPError):
        list(fetch_blob(TARGET, plan.commit, weights))
    assert on_the_hub.refused == attempts
