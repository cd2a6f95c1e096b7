"""Files of a checkpoint in several shards: what is missing or damaged is named, with the next step."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import specdec_core as sd
from specdec_core.hub.file_names import WEIGHTS, WEIGHTS_INDEX
from specdec_core.hub.weight_files import StoredTensor, stored_tensors
from tests.support.stored_weights import weights_of

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def sharded(tmp_path) -> Path:
    """A folder with two shards and their index."""
    save_file({"a": torch.zeros(2, 3)}, tmp_path / FIRST)
    save_file({"b": torch.zeros(4, dtype=torch.int8)}, tmp_path / SECOND)
    index = {"metadata": {}, "weight_map": {"a": FIRST, "b": SECOND}}
    (tmp_path / WEIGHTS_INDEX).write_text(json.dumps(index))
    return tmp_path


def refusal(folder: Path) -> str:
    """Return the message of the error that reading the headers raises."""
    with pytest.raises(sd.LoadError) as error:
        stored_tensors(folder)
    return str(error.value)


def test_the_headers_of_all_shards_are_read(sharded):
    assert stored_tensors(sharded) == {"a": StoredTensor("F32", (2, 3)), "b": StoredTensor("I8", (4,))}


def test_one_whole_file_goes_before_an_index_as_in_transformers(sharded):
    save_file({"c": torch.zeros(1)}, sharded / WEIGHTS)
    assert list(stored_tensors(sharded)) == ["c"]


def test_the_file_that_config_json_names_goes_first(sharded):
    assert list(stored_tensors(sharded, SECOND)) == ["b"]


def test_a_missing_shard_is_named(sharded):
    (sharded / SECOND).unlink()
    message = refusal(sharded)
    assert f"lacks 1 file of the weights that {WEIGHTS_INDEX} lists, the first being {SECOND}" in message
    assert "Download or copy it again" in message


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "{",
        '{"weight_map": {}, "metadata": {}}',
        '{"weight_map": [1], "metadata": {}}',
        '{"weight_map": {"a": 1}, "metadata": {}}',
        '{"weight_map": {"a": "model.safetensors"}}',
    ],
)
def test_a_damaged_index_is_named(sharded, text):
    (sharded / WEIGHTS_INDEX).write_text(text)
    message = refusal(sharded)
    assert str(sharded / WEIGHTS_INDEX) in message
    assert f"Download or copy {WEIGHTS_INDEX} again" in message


def test_shards_without_an_index_say_that_it_is_missing(sharded):
    (sharded / WEIGHTS_INDEX).unlink()
    assert f"has {FIRST}, but no {WEIGHTS} nor {WEIGHTS_INDEX}" in refusal(sharded)


def test_a_corrupt_shard_is_named_by_the_load(sharded, pair_folders):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (sharded / name).write_bytes(Path(pair_folders[0], name).read_bytes())
    save_file(weights_of(pair_folders[0]), sharded / FIRST)
    (sharded / SECOND).write_bytes(b"")
    with pytest.raises(sd.LoadError, match=rf"corrupt \({SECOND}"):
        sd.Engine.load(target=str(sharded), device="cpu")
