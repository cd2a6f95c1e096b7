"""GGUF files on the Hub: the header alone is fetched, one commit is kept, refusals are explained."""

from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from huggingface_hub import constants

import specdec_core as sd
from specdec_core.hub.gguf_files import read_gguf
from specdec_core.loading.weights import ModelSource, with_gguf_file
from tests.support.hub_server import HubServer
from tests.support.tiny_gguf import refusal, save_gguf

Q4_0, Q8_0 = (GGMLQuantizationType[name] for name in ("Q4_0", "Q8_0"))


def on_hub(hub: HubServer, folder: Path, **options) -> str:
    """Put a file on the Hub; return its name for the engine."""
    save_gguf(folder / "repository", **options)
    hub.repositories["owner/model"] = folder / "repository"
    return "owner/model:model.gguf"


def move_on(hub: HubServer, folder: Path) -> None:
    """Give the repository another commit, with the files of the folder `later`."""
    hub.history[hub.commit] = folder / "repository"
    hub.repositories["owner/model"], hub.commit = folder / "later", "f" * 40


def test_of_a_file_on_the_hub_only_the_header_is_fetched(hub: HubServer, tmp_path, monkeypatch):
    monkeypatch.setattr("specdec_core.hub.gguf_header._FIRST_BYTES", 2**14)
    name = on_hub(hub, tmp_path)
    file = read_gguf(name)
    assert file.path is None
    assert file.folder == read_gguf(str(tmp_path / "repository" / "model.gguf")).folder
    assert {wanted.partition("-")[0] for wanted in hub.ranges} == {"bytes=0"}
    fetched = max(int(wanted.partition("-")[2]) for wanted in hub.ranges)
    assert fetched < (tmp_path / "repository" / "model.gguf").stat().st_size


def test_a_server_without_ranges_is_read_no_further_than_the_header(hub: HubServer, tmp_path):
    hub.ignores_ranges = True
    assert read_gguf(on_hub(hub, tmp_path)).format == "GGUF"


def test_a_file_on_the_hub_is_loaded_and_answers_offline_afterwards(hub: HubServer, tmp_path, monkeypatch):
    name = on_hub(hub, tmp_path, kinds=Q8_0)
    settings = sd.Settings(temperature=0, gamma=0, max_new_tokens=5)
    online = sd.Engine.load(target=name, device="cpu")
    assert online.pair.target.weights == "int8"
    wanted = online.generate("Once", settings).token_ids
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    offline = sd.Engine.load(target=name, device="cpu")
    assert offline.generate("Once", settings).token_ids == wanted
    assert Path(offline.pair.gguf).is_file()


def test_a_load_fetches_the_header_once(hub: HubServer, tmp_path):
    engine = sd.Engine.load(target=on_hub(hub, tmp_path), device="cpu")
    assert engine.pair.target_name == "owner/model:model.gguf"
    assert len(hub.ranges) == 1


@pytest.mark.parametrize("revision", [None, "main"])
def test_a_file_that_changes_on_the_hub_is_loaded_as_it_was_checked(
    revision, hub: HubServer, tmp_path, monkeypatch
):
    name = on_hub(hub, tmp_path, kinds=Q8_0)
    checked = (tmp_path / "repository" / "model.gguf").read_bytes()
    save_gguf(tmp_path / "later", kinds=Q4_0)

    def change(step: str, _: float) -> None:
        if step.startswith("Comparing the memory"):  # the gate has passed
            move_on(hub, tmp_path)

    engine = sd.Engine.load(target=name, revision=revision, device="cpu", on_progress=change)
    assert Path(engine.pair.gguf).read_bytes() == checked
    assert engine.pair.target.weights == "int8"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Path(read_gguf(name).path).read_bytes() == checked


@pytest.mark.parametrize("offline", [False, True])
def test_a_file_in_the_cache_has_the_commit_that_the_gate_reads(
    offline, hub: HubServer, tmp_path, monkeypatch
):
    name = on_hub(hub, tmp_path, kinds=Q8_0)
    sd.Engine.load(target=name, device="cpu")
    save_gguf(tmp_path / "later", kinds=Q4_0)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    source = with_gguf_file(ModelSource(name))
    assert source.gguf.path is not None
    assert source.revision == hub.commit
    move_on(hub, tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert read_gguf(name, source.revision).path == source.gguf.path
    assert read_gguf(name).path is None


def test_a_cached_file_is_used_while_the_hub_is_out_of_order(hub: HubServer, tmp_path):
    name = on_hub(hub, tmp_path)
    sd.Engine.load(target=name, device="cpu")
    hub.refusals["owner/model"] = (500, "")
    assert read_gguf(name).path is not None
    hub.refusals["owner/model"] = (401, "GatedRepo")
    assert "gated" in refusal(name)


def test_a_missing_file_or_repository_on_the_hub_is_told(hub: HubServer, tmp_path):
    on_hub(hub, tmp_path)
    assert "other.gguf" in refusal("owner/model:other.gguf")
    assert "neither a folder here nor a repository" in refusal("owner/nothing:model.gguf")
