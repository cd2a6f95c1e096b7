"""Configuration and tokenizer of a model: files that are read, and messages for those that cannot be."""

import re

import pytest
from huggingface_hub import constants

from specdec_core.errors import PairUncheckableError
from specdec_core.gate.check import check_pair
from specdec_core.hub.model_files import read_model_files
from tests.support.hub_server import HubServer
from tests.support.tiny_tokenizers import write_json, write_model


@pytest.fixture
def target(tmp_path):
    return write_model(tmp_path / "target")


# No weights


def test_weights_are_never_read(target, tmp_path):
    drafter = write_model(tmp_path / "drafter")
    for name in ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"):
        (drafter / name).write_bytes(b"not weights at all")
    assert check_pair(target, drafter).ok


def test_weights_are_never_downloaded(hub: HubServer, target, tmp_path):
    drafter = write_model(tmp_path / "drafter")
    (drafter / "model.safetensors").write_bytes(b"weights")
    hub.repositories["owner/drafter"] = drafter
    assert check_pair(target, "owner/drafter").ok
    assert "tokenizer.json" in hub.requested
    assert not [name for name in hub.requested if re.search(r"safetensors|\.bin|model\.py", name)]


# What cannot be checked


def unchecked(*arguments, **options) -> str:
    with pytest.raises(PairUncheckableError) as error:
        check_pair(*arguments, **options)
    return str(error.value)


def test_a_folder_that_is_not_there_is_named(target):
    assert "There is no folder ./nowhere/at-all" in unchecked(target, "./nowhere/at-all")


def test_a_name_that_is_neither_folder_nor_hub_id_is_named(target):
    assert "There is no folder models/of/mine" in unchecked(target, "models/of/mine")


def test_a_file_in_place_of_a_folder_is_named(target):
    assert "config.json is a file" in unchecked(target / "config.json", target)


def test_an_empty_name_is_refused(target):
    assert "No model was named" in unchecked(target, " ")


def test_a_folder_without_a_config_is_named(target):
    (target / "config.json").unlink()
    assert f"The folder {target} has no config.json" in unchecked(target, target)


def test_a_folder_without_a_tokenizer_is_named(target):
    (target / "tokenizer.json").unlink()
    assert f"{target} has no tokenizer files" in unchecked(target, target)


def test_a_tokenizer_that_its_class_would_make_up_is_not_taken_for_one(tmp_path):
    """GemmaTokenizer starts with five tokens of its own where the folder holds none."""
    folder = write_model(tmp_path / "gemma", config={"model_type": "gemma", "architectures": None})
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer files" in unchecked(folder, folder)


@pytest.mark.parametrize("damage", ['{"model_type": "lla', b'{"model_type": "ll\xff"}', "[1, 2]", "{}"])
def test_a_damaged_config_is_named(target, damage):
    (target / "config.json").write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    assert re.search(r"target: config\.json cannot be read", unchecked(target, target))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' expected int, got str (value: 'two')"),
        ({"hidden_size": 65}, "hidden size (65) is not a multiple of the number of attention heads (4)"),
        ({"vocab_size": None}, "'vocab_size' expected int, got NoneType"),
    ],
)
def test_a_bad_value_in_the_config_is_told_with_its_reason(tmp_path, values, reason):
    folder = write_model(tmp_path / "model", config=values)
    assert reason in unchecked(folder, folder)


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"model_type": "qwen3_moe", "num_experts": 10**9},
        {"model_type": "gpt2", "n_layer": 10**9},
        {"model_type": "gemma3", "vision_config": {"num_hidden_layers": 10**9}},
    ],
)
def test_a_model_of_a_billion_layers_is_not_built(tmp_path, values):
    folder = write_model(tmp_path / "model", config=values)
    assert "= 1,000,000,000, more than any model has" in unchecked(folder, folder)


@pytest.mark.parametrize("damage", ['{"version": "1.0", "model"', '{"model": {}}', "[]", ""])
def test_a_damaged_tokenizer_is_named(target, damage):
    (target / "tokenizer.json").write_text(damage)
    assert re.search(r"target: the tokenizer's files cannot be read", unchecked(target, target))


def test_a_model_that_brings_its_own_code_is_never_run(target):
    code = target / "own.py"
    code.write_text("raise SystemExit('this ran')")
    write_json(target / "config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}})
    assert "brings Python code of its own, which is never run" in unchecked(target, target)


def test_an_unknown_architecture_is_named(target):
    write_json(target / "config.json", {"model_type": "unheard-of"})
    assert "unheard-of" in unchecked(target, target)


def test_a_gated_model_without_access_names_the_licence_page_and_the_token(hub: HubServer, target):
    hub.refusals["meta/gated"] = (403, "GatedRepo")
    message = unchecked(target, "meta/gated")
    assert f"Accept its licence at {hub.address}/meta/gated" in message
    assert "set HF_TOKEN" in message


def test_an_unknown_repository_asks_to_check_the_spelling(hub: HubServer, target):
    assert "neither a folder here nor a repository" in unchecked(target, "nobody/nothing")


def test_an_unknown_revision_is_named(hub: HubServer, target):
    hub.repositories["owner/model"] = target
    assert "owner/model has no revision 'v9'" in unchecked("owner/model", target, target_revision="v9")


def test_a_refused_token_is_told(hub: HubServer, target):
    hub.refusals["owner/model"] = (401, "")
    message = unchecked("owner/model", target)
    assert "The Hub answered 401" in message
    assert "HF_TOKEN" in message


def test_a_hub_that_cannot_be_reached_says_how_to_go_on(monkeypatch, tmp_path, target):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    message = unchecked("owner/model", target)
    assert "owner/model is no folder here, it has not been downloaded, and HF_HUB_OFFLINE is set" in message
    assert "Go online" in message


def test_a_repository_without_a_tokenizer_is_named(hub: HubServer, target):
    (target / "tokenizer.json").unlink()
    hub.repositories["owner/model"] = target
    assert "No tokenizer files of owner/model" in unchecked("owner/model", "owner/model")


def test_a_downloaded_model_is_checked_without_the_hub(hub: HubServer, monkeypatch, target):
    hub.repositories["owner/model"] = target
    check_pair("owner/model", target)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert check_pair("owner/model", target).ok


@pytest.mark.parametrize("length", [[], -1, "long", 0.5])
def test_a_tokenizers_longest_text_is_not_used(tmp_path, length):
    folder = write_model(tmp_path / "model", tokenizer_config={"model_max_length": length})
    assert read_model_files(folder).tokenizer.encode("the end")
