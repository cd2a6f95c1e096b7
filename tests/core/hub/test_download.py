"""Download of weights from a Hub: files, progress, and an error message with a next step for each failure."""

import errno
import json
import logging
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

import specdec_core as sd
from specdec_core.errors import LoadError
from specdec_core.hub.download import downloaded_folder, fetch, plan_download, require_disk_space
from specdec_core.hub.errors import explain_hub_error
from tests.support.hub_pair import DRAFTER, TARGET, load, refusal
from tests.support.hub_server import COMMIT

HI = [{"role": "user", "content": "Once upon a time"}]
TOKEN = "hf_a-secret-of-32-characters-or-so"
ROOT = Path(__file__).parents[3]


# What is downloaded


def test_a_pair_is_downloaded_and_answers(on_the_hub):
    engine = load()
    assert engine.generate(HI, sd.Settings(max_new_tokens=8, seed=1)).token_ids
    assert engine.info.target == TARGET


def test_progress_tells_bytes_and_never_goes_back(on_the_hub):
    reports = []
    load(on_progress=lambda message, share: reports.append((message, share)))
    shares = [share for _, share in reports]
    assert shares == sorted(shares)
    downloading = [message for message, _ in reports if message.startswith("Downloading")]
    assert downloading[0].startswith(f"Downloading {TARGET}: 0.0 MB of 0.")
    assert any(DRAFTER in message for message in downloading)


def test_only_safetensors_and_configurations_are_fetched(on_the_hub):
    folder = on_the_hub.repositories[TARGET]
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model.gguf", "own.py"):
        (folder / name).write_bytes(b"not to be fetched")
    load()
    assert "model.safetensors" in on_the_hub.requested
    assert not set(on_the_hub.requested) & {"pytorch_model.bin", "consolidated.safetensors", "model.gguf"}


def test_weights_in_several_files_are_found_by_their_index(on_the_hub):
    from transformers import AutoModelForCausalLM

    folder = on_the_hub.repositories[TARGET]
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="60KB")
    shards = {path.name for path in folder.glob("model-*.safetensors")}
    assert len(shards) > 1
    load()
    assert shards < set(on_the_hub.requested)


def test_what_is_here_is_not_fetched_again(on_the_hub):
    load()
    on_the_hub.requested.clear()
    load()
    assert "model.safetensors" not in on_the_hub.requested


def test_a_downloaded_pair_loads_without_the_hub(on_the_hub, monkeypatch):
    load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load().generate(HI, sd.Settings(max_new_tokens=4, seed=1)).token_ids


def test_a_pair_that_is_refused_costs_no_download(on_the_hub):
    file = on_the_hub.repositories[DRAFTER] / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 512}))
    with pytest.raises(sd.IncompatiblePairError):
        load()
    assert "model.safetensors" not in on_the_hub.requested


def test_a_revision_is_the_one_that_is_loaded(on_the_hub):
    load(revision=COMMIT, drafter_revision=COMMIT)
    assert downloaded_folder(TARGET, COMMIT).endswith(COMMIT)
    assert downloaded_folder(DRAFTER, COMMIT).endswith(COMMIT)


def test_a_drafters_revision_that_is_not_there_is_named(on_the_hub):
    assert f"{DRAFTER} has no revision 'v9'" in refusal(drafter_revision="v9")


# What goes wrong


def test_a_gated_model_without_a_token_asks_for_licence_and_token(on_the_hub):
    on_the_hub.gated[TARGET] = {TOKEN}
    message = refusal()
    assert f"{TARGET} is gated, and this machine is not logged in" in message
    assert f"Accept its licence at {on_the_hub.address}/{TARGET}" in message
    assert "set HF_TOKEN" in message


def test_a_gated_model_with_a_token_that_has_no_licence_says_so(on_the_hub, monkeypatch):
    on_the_hub.gated[TARGET] = {TOKEN}
    monkeypatch.setenv("HF_TOKEN", "hf_somebody_else")
    message = refusal()
    assert "the account of this machine's token has no access" in message
    assert f"Accept its licence at {on_the_hub.address}/{TARGET} with that account" in message


def test_a_gated_model_loads_with_the_token_of_the_environment(on_the_hub, monkeypatch):
    on_the_hub.gated = {TARGET: {TOKEN}, DRAFTER: {TOKEN}}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert load().info.target == TARGET


def test_a_licence_that_is_lost_after_the_gate_is_told_too(on_the_hub):
    plan = plan_download(TARGET)
    on_the_hub.gated[TARGET] = set()
    with pytest.raises(LoadError, match="is gated, and this machine is not logged in"):
        fetch(plan, lambda count: None)


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_no_message_and_no_log_holds_the_token(on_the_hub, monkeypatch, caplog, status):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    caplog.set_level(logging.DEBUG)
    on_the_hub.refusals[TARGET] = (status, "")
    message = refusal()
    assert TARGET in message
    assert TOKEN not in message
    assert TOKEN not in caplog.text


def test_a_token_in_a_librarys_own_words_is_left_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error = ConnectionError(f"Illegal header value b'Bearer {TOKEN}'")
    assert TOKEN not in explain_hub_error("owner/model", None, error)


def test_an_unknown_repository_and_revision_are_told_apart(on_the_hub):
    assert "neither a folder here nor a repository" in refusal(target="owner/nothing")
    assert f"{TARGET} has no revision 'v9'" in refusal(revision="v9")
    with pytest.raises(LoadError, match="neither a folder here nor a repository"):
        plan_download("owner/nothing")
    with pytest.raises(LoadError, match="has no revision 'v9'"):
        plan_download(TARGET, "v9")


def test_no_network_says_how_to_go_on(on_the_hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "it has not been downloaded, and HF_HUB_OFFLINE is set. Go online" in refusal()


def test_a_network_that_is_lost_after_the_gate_says_how_to_go_on(on_the_hub, monkeypatch):
    sd.check_pair(TARGET, DRAFTER)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:9 cannot be reached\. Go online"):
        plan_download(TARGET)


def test_a_repository_without_safetensors_is_named(on_the_hub):
    folder = on_the_hub.repositories[TARGET]
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    message = refusal()
    assert f"{TARGET} has no safetensors weights" in message
    assert "pytorch_model.bin" not in on_the_hub.requested


def test_a_disk_without_room_is_told_before_anything_is_fetched(on_the_hub, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=100_000_000))
    message = refusal()
    assert f"{TARGET} and {DRAFTER}" in message
    assert "0.1 GB are free there. Free space, or set HF_HOME" in message
    assert "model.safetensors" not in on_the_hub.requested


def test_a_disk_has_room_where_nothing_is_to_be_fetched(on_the_hub, monkeypatch):
    load()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=0))
    require_disk_space([plan_download(TARGET)])


def test_a_disk_that_becomes_full_meanwhile_is_told():
    message = explain_hub_error("owner/model", None, OSError(errno.ENOSPC, "No space left on device"))
    assert "The disk became full while owner/model was downloaded" in message
    assert "load again" in message
