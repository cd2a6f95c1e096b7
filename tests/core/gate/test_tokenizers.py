"""Cutting of text: a rule that makes other tokens of the same text refuses a pair, by name."""

import pytest

from specdec_core.gate.check import check_pair
from specdec_core.gate.report import Check
from tests.support.gate_reports import CUTTING, LLAMA, check_named, statuses
from tests.support.tiny_tokenizers import gpt_like, llama_like, write_json, write_model


@pytest.fixture
def target(tmp_path):
    return write_model(tmp_path / "target")


def cutting_failure(target, drafter) -> Check:
    """The one check that fails, all others passing."""
    report = check_pair(target, drafter)
    assert statuses(report) == {CUTTING: "fail"}
    return check_named(report, CUTTING)


def test_other_merges_alone_are_refused_with_the_first_that_differs(target, tmp_path):
    tokenizer = gpt_like()
    merges = tokenizer["model"]["merges"]
    merges[3], merges[4] = merges[4], merges[3]
    failed = cutting_failure(target, write_model(tmp_path / "drafter", tokenizer))
    assert failed.target_value == "merge 4: 'i' + 'n'"
    assert failed.drafter_value == "merge 4: 'a' + 'n'"


def test_merges_that_end_early_are_refused(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["model"]["merges"].pop()
    failed = cutting_failure(target, write_model(tmp_path / "drafter", tokenizer))
    assert failed.drafter_value == "merge 8: none"


def test_another_normalizer_alone_is_refused(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", gpt_like() | {"normalizer": {"type": "NFC"}})
    failed = cutting_failure(target, drafter)
    assert failed.target_value == "normalizer: none"
    assert failed.drafter_value == 'normalizer: {"type": "NFC"}'


def test_another_pre_tokenizer_alone_is_refused(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["pre_tokenizer"]["add_prefix_space"] = True
    assert (
        "pre-tokenizer" in cutting_failure(target, write_model(tmp_path / "drafter", tokenizer)).explanation
    )


def test_long_pre_tokenizers_are_shown_where_they_differ(tmp_path):
    def split(digits: str) -> dict:
        pattern = "|".join(["[^\\r\\n\\p{L}]?\\p{L}+"] * 12) + f"|\\p{{N}}{digits}|\\s+(?!\\S)|\\s+"
        return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}

    target = write_model(tmp_path / "target", gpt_like() | {"pre_tokenizer": split("{1,3}")})
    drafter = write_model(tmp_path / "drafter", gpt_like() | {"pre_tokenizer": split("")})
    failed = cutting_failure(target, drafter)
    assert "{1,3}" in failed.target_value
    assert "{1,3}" not in failed.drafter_value


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("byte_fallback", True, "byte fallback"),
        ("ignore_merges", True, "ignore_merges"),
        ("fuse_unk", True, "fusing of unknown tokens"),
        ("unk_token", "<|pad|>", "unknown token"),
        ("dropout", 0.1, "merge dropout"),
    ],
)
def test_another_option_of_the_model_is_refused_by_name(target, tmp_path, option, value, words):
    tokenizer = gpt_like()
    tokenizer["model"][option] = value
    assert words in cutting_failure(target, write_model(tmp_path / "drafter", tokenizer)).explanation


def test_an_absent_option_is_the_same_as_one_that_is_off(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["model"] |= {"byte_fallback": False, "continuing_subword_prefix": "", "dropout": None}
    assert check_pair(target, write_model(tmp_path / "drafter", tokenizer)).ok


def test_a_sequence_of_one_step_is_that_step(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [tokenizer["pre_tokenizer"]]}
    assert statuses(check_pair(target, write_model(tmp_path / "drafter", tokenizer))) == {}


def test_another_flag_of_an_added_token_is_refused(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["added_tokens"][1]["lstrip"] = True
    failed = cutting_failure(target, write_model(tmp_path / "drafter", tokenizer))
    assert failed.drafter_value == "added token '<|end|>': lstrip"


def test_identical_files_are_one_tokenizer_whatever_their_classes(tmp_path):
    """LlamaTokenizer would put its own pre-tokenizer in place of the one in the file."""
    tokenizer = llama_like() | {"pre_tokenizer": {"type": "Whitespace"}}
    target = write_model(tmp_path / "target", tokenizer, tokenizer_config=LLAMA)
    plain = LLAMA | {"tokenizer_class": "PreTrainedTokenizerFast"}
    report = check_pair(target, write_model(tmp_path / "drafter", tokenizer, tokenizer_config=plain))
    assert statuses(report) == {CUTTING: "warning"}


def test_a_drafter_of_another_architecture_with_the_targets_files_is_accepted(target, tmp_path):
    """Qwen2Tokenizer, which a Qwen2 model gets, would add a token and rules that no file has."""
    report = check_pair(target, write_model(tmp_path / "drafter", config={"model_type": "qwen2"}))
    assert report.ok
    assert "Qwen2Tokenizer replaces normalizer, pre-tokenizer" in check_named(report, CUTTING).explanation


def test_files_that_differ_are_refused_though_their_class_makes_them_alike(tmp_path):
    other = llama_like() | {"pre_tokenizer": {"type": "Whitespace"}}
    target = write_model(tmp_path / "target", llama_like(), tokenizer_config=LLAMA)
    drafter = write_model(tmp_path / "drafter", other, tokenizer_config=LLAMA)
    assert check_named(check_pair(target, drafter), CUTTING).status == "fail"


def test_options_of_a_byte_level_decoder_are_no_difference(target, tmp_path):
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": False}
    drafter = write_model(tmp_path / "drafter", gpt_like() | {"decoder": decoder})
    assert statuses(check_pair(target, drafter)) == {}


def test_other_scores_of_a_unigram_model_are_refused(tmp_path):
    def unigram(score: float) -> dict:
        pieces = [["<unk>", 0.0], ["a", -1.0], ["b", score], ["ab", -3.0]]
        tokenizer = gpt_like() | {"model": {"type": "Unigram", "unk_id": 0, "vocab": pieces}}
        return tokenizer | {"added_tokens": []}

    def folder(name: str, score: float):
        path = tmp_path / name
        write_model(path, config={"vocab_size": 4})
        write_json(path / "tokenizer.json", unigram(score))
        write_json(path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        return path

    failed = cutting_failure(folder("target", -2.0), folder("drafter", -2.5))
    assert failed.drafter_value == 'score of piece 2: ["b", -2.5]'


def test_another_decoder_is_a_warning_since_the_targets_is_used(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", gpt_like() | {"decoder": {"type": "Fuse"}})
    report = check_pair(target, drafter)
    assert report.ok
    assert statuses(report) == {CUTTING: "warning"}


def python_only(folder, tokenizer_class: str, config: dict | None = None):
    """A model whose tokenizer is Python code, without a serialized form."""
    write_model(folder, config=config)
    (folder / "tokenizer.json").unlink()
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": tokenizer_class})
    return folder


def ctrl(folder, merges: list[str]):
    python_only(folder, "CTRLTokenizer")
    pieces = [
        "<unk>",
        *"abcdefghijklmnopqrstuvwxyz",
        *(f"{c}@@" for c in "abcdefghijklmnopqrstuvwxyz"),
        "fo@@",
        "ox",
    ]
    write_json(folder / "vocab.json", {piece: number for number, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return folder


def test_tokenizers_without_a_serialized_form_are_compared_on_a_probe_text(tmp_path):
    folders = [python_only(tmp_path / name, "ByT5Tokenizer", {"vocab_size": 384}) for name in "td"]
    report = check_pair(*folders)
    assert report.ok
    assert "probe text" in check_named(report, CUTTING).explanation


def test_tokenizers_that_cut_the_probe_text_differently_are_refused(tmp_path):
    target = ctrl(tmp_path / "target", ["f o", "o x</w>"])
    failed = cutting_failure(target, ctrl(tmp_path / "drafter", ["o x</w>", "f o"]))
    assert "probe text" in failed.explanation
    assert failed.target_value != failed.drafter_value
