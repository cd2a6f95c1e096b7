"""The rules of tokenizer.json win over those that a tokenizer's class would put in their place."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from specdec_core.hub.model_files import read_model_files
from tests.support.tiny_tokenizers import MERGES, gpt_like, llama_like, write_json, write_model

TEXT = "The end, 3.14159 times  then\n\n\tindeed: Ａﬁ e\u0301 <|end|>the 你好 <s>in"
QWEN2 = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
PRESETS = Path(__file__).parents[3] / "presets"


def assert_ids_and_text_of_the_file(folder: Path) -> None:
    """Compare with the tokenizers library, which reads the file alone."""
    tokenizer = read_model_files(folder).tokenizer
    raw = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = raw.encode(TEXT, add_special_tokens=False).ids
    assert tokenizer.encode(TEXT, add_special_tokens=False) == ids
    assert tokenizer.decode(ids) == raw.decode(ids, skip_special_tokens=False)
    assert tokenizer.get_vocab() == raw.get_vocab()


@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "gemma", "gpt2", "gpt_neox", "deepseek_v2", "mistral"]
)
@pytest.mark.parametrize(
    "tokenizer_class", ["LlamaTokenizerFast", "Qwen2Tokenizer", "GPT2TokenizerFast", None]
)
@pytest.mark.parametrize("make", [gpt_like, llama_like])
def test_ids_and_text_are_those_of_the_file_whatever_the_classes(tmp_path, make, tokenizer_class, model_type):
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": None} if make is llama_like else {}
    folder = write_model(
        tmp_path / "model",
        make(),
        config={"model_type": model_type},
        tokenizer_config=ends | {"tokenizer_class": tokenizer_class},
    )
    assert_ids_and_text_of_the_file(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Digits", "individual_digits": True}},
        {"decoder": {"type": "Fuse"}},
    ],
)
def test_a_single_rule_of_the_file_is_kept(tmp_path, changes):
    assert_ids_and_text_of_the_file(write_model(tmp_path / "model", gpt_like() | changes, config=QWEN2))


def test_flags_of_an_added_token_are_kept(tmp_path):
    tokenizer = gpt_like()
    tokenizer["added_tokens"][1]["lstrip"] = True
    assert_ids_and_text_of_the_file(write_model(tmp_path / "model", tokenizer, config=QWEN2))


def test_what_a_class_would_replace_is_named_with_the_folder(tmp_path):
    folder = write_model(tmp_path / "model", config=QWEN2)
    replaced = read_model_files(folder).replaced
    assert replaced is not None
    assert replaced.startswith("Qwen2Tokenizer replaces normalizer, pre-tokenizer")
    assert replaced.endswith(f"of {folder}'s tokenizer.json")


@pytest.mark.parametrize(
    ("tokenizer_class", "words"),
    [
        ("T5Tokenizer", "transformers' class cannot read"),
        ("ByT5Tokenizer", "ByT5Tokenizer does not read"),
    ],
)
def test_the_file_is_read_where_its_class_cannot(tmp_path, tokenizer_class, words):
    folder = write_model(tmp_path / "model", tokenizer_config={"tokenizer_class": tokenizer_class})
    assert_ids_and_text_of_the_file(folder)
    assert words in (read_model_files(folder).replaced or "")


def test_nothing_is_replaced_of_a_file_that_the_class_takes_as_it_is(tmp_path):
    assert read_model_files(write_model(tmp_path / "model")).replaced is None


@pytest.mark.parametrize("role", ["target", "drafter"])
def test_nothing_is_replaced_of_the_embedded_pair(role):
    assert read_model_files(PRESETS / "stories" / role).replaced is None


def test_special_tokens_and_chat_template_are_kept(tmp_path):
    template = "{{ messages[0].content }}"
    folder = write_model(tmp_path / "model", config=QWEN2, tokenizer_config={"chat_template": template})
    tokenizer = read_model_files(folder).tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|begin|>",
        "<|end|>",
        "<|pad|>",
    )
    assert tokenizer.chat_template == template


@pytest.mark.parametrize(("token", "eos"), [("<|endoftext|>", "<|endoftext|>"), ("<|end|>", None)])
def test_an_end_that_only_the_class_names_is_taken_if_the_file_has_it(tmp_path, token, eos):
    tokenizer = gpt_like()
    tokenizer["added_tokens"][1]["content"] = token
    folder = write_model(tmp_path / "model", tokenizer, config=QWEN2)
    write_json(folder / "tokenizer_config.json", {})
    assert read_model_files(folder).tokenizer.eos_token == eos


def test_a_tokenizer_of_other_files_is_as_its_class_builds_it(tmp_path):
    folder = write_model(tmp_path / "model", config=QWEN2)
    (folder / "tokenizer.json").unlink()
    write_json(folder / "vocab.json", gpt_like()["model"]["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, MERGES)), encoding="utf-8")
    files = read_model_files(folder)
    assert (type(files.tokenizer).__name__, files.replaced) == ("Qwen2Tokenizer", None)
    assert files.tokenizer.convert_ids_to_tokens(files.tokenizer.encode(" then")) == ["Ġthe", "n"]
