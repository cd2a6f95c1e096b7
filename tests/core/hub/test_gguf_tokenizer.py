"""Tokenizers from GGUF metadata cut text as llama.cpp does; gguf_tokenizer.json has the ids that it gave."""

import json
import random
from functools import cache
from itertools import chain
from pathlib import Path
from typing import cast

import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer, TokenizersBackend

from specdec_core.hub.gguf_pre_tokenizers import PRE_TOKENIZERS
from specdec_core.hub.gguf_tokenizer import UnknownTokenizerError, write_tokenizer
from specdec_core.hub.model_files import read_model_files
from specdec_core.hub.tokenizer_file import replaced_rules
from tests.support.tiny_tokenizers import write_model

RESULTS = json.loads(
    Path(__file__).with_suffix(".json").with_stem("gguf_tokenizer").read_text(encoding="utf-8")
)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
NUMERIC = "²³¹¼½¾"
"""Characters of bytes that count as digits in Falcon's steps, so that its vocabulary merges none."""
TEXTS = [
    "I can't, he's; WE'LL they'D x²  ab v2.0\n 1 camelCase HTTPServer _init_ !!/\n\n\n end\r\n\r\n ok\t\t x",
    "a\u00a0b\u3000\u3000c\u2028d\u0085 ?!? 你好，世界。カナ 안 мир ïve  (x)[y] |a| #t $x `q` <|end|>  ",
    "7 77 1234567 1,234.5 ①Ⅻ x77  77\n 10",
    "x\u0303 q\u0301y ก็ा हिन्दी 'tis O'SHEA",
]


@cache
def letters_and_pairs():
    """Return the texts' bytes as a vocabulary has them, and every two of them, so that ids show each cut."""
    spelled = ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [piece for text in TEXTS for piece, _ in spelled.pre_tokenize_str(text)]
    letters = sorted(set(chain.from_iterable(pieces)))
    pairs = [(left, right) for left in letters for right in letters if not {left, right} & set(NUMERIC)]
    random.Random(0).shuffle(pairs)
    return letters, pairs


def byte_level(pre="gpt-2", **changes):
    """Metadata of a BPE over bytes."""
    letters, pairs = letters_and_pairs()
    tokens = ["<|bos|>", "<|end|>", "<tool>", *letters, *map("".join, pairs)]
    return _metadata(
        {
            "model": "gpt2",
            "pre": pre,
            "tokens": tokens,
            "token_type": [CONTROL, CONTROL, USER_DEFINED] + [NORMAL] * (len(tokens) - 3),
            "merges": list(map(" ".join, pairs)),
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        changes,
    )


def sentencepiece(**changes):
    """Metadata of SentencePiece's BPE with byte fallback, control tokens and runs of white space."""
    control = ["<unk>", "<s>", "</s>", "<end_of_turn>"]
    runs = ["\n", "\n\n", "\n\n\n", "  ", "   ", "<table>"]
    merged = ["▁t", "er", "in", "on", "▁the", "th", "he", "▁th", "▁in", "ab", "bab", "aba", "<e", "nd"]
    letters = [*"▁abcdefghijklmnopqrstuvwxyz<>_é"]
    tokens = [*control, *map("<0x{:02X}>".format, range(256)), *runs, *merged, *letters]
    kinds = [UNKNOWN, CONTROL, CONTROL, CONTROL, *[BYTE] * 256, *[USER_DEFINED] * len(runs)]
    return _metadata(
        {
            "model": "llama",
            "tokens": tokens,
            "token_type": kinds + [NORMAL] * (len(tokens) - len(kinds)),
            "scores": [-1000.0] * len(kinds) + [-float(at) for at in range(len(merged) + len(letters))],
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
        },
        changes,
    )


def _metadata(values, changes):
    values = {name: value for name, value in (values | changes).items() if value is not None}
    return {"general.architecture": "llama"} | {
        f"tokenizer.ggml.{name}": value for name, value in values.items()
    }


def converted(metadata, folder):
    """Return the tokenizer as it encodes what a person types: control tokens are text."""
    write_tokenizer(metadata, folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_text_is_cut_as_the_pre_tokenizer_of_that_name_cuts_it(tmp_path, name):
    tokenizer = converted(byte_level(name), tmp_path)
    expected = next(group for group in RESULTS["pre_tokenizers"] if name in group["names"])
    for text, ids in zip(TEXTS, expected["ids"], strict=True):
        # There are none where llama.cpp itself cuts otherwise than the family's tokenizer.json.
        assert not ids or tokenizer.encode(text, add_special_tokens=False).ids == ids
    assert tokenizer.encode("can").ids == expected["with_ends"]


@pytest.mark.parametrize(
    ("adds_bos", "adds_eos", "ends"), [(True, True, (0, 1)), (False, False, (None, None))]
)
def test_the_metadata_says_what_is_put_around_a_text(tmp_path, adds_bos, adds_eos, ends):
    write_tokenizer(byte_level("llama-bpe", add_bos_token=adds_bos, add_eos_token=adds_eos), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    inner = tokenizer.encode("can", add_special_tokens=False)
    bos, eos = ([] if end is None else [end] for end in ends)
    assert tokenizer("can")["input_ids"] == bos + inner + eos


def test_upper_and_lower_case_are_those_of_unicode_where_llama_cpp_knows_ascii(tmp_path):
    rules = json.dumps(PRE_TOKENIZERS["gpt-4o"].part)
    write_tokenizer(byte_level("gpt-4o"), tmp_path)
    pre_tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).pre_tokenizer
    assert pre_tokenizer is not None
    assert rules == json.dumps(json.loads((tmp_path / "tokenizer.json").read_text())["pre_tokenizer"])
    assert [at for _, at in pre_tokenizer.pre_tokenize_str("straßeÉlan")] == [(0, 6), (6, 10)]


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2"])
def test_a_piece_in_the_vocabulary_is_one_token_where_merges_are_ignored(tmp_path, name):
    metadata = byte_level(name)
    metadata["tokenizer.ggml.tokens"].append("Ġcamel")
    metadata["tokenizer.ggml.token_type"].append(NORMAL)
    ids = converted(metadata, tmp_path).encode(" camel", add_special_tokens=False).ids
    assert ids == RESULTS["whole_piece"][name]


@pytest.mark.parametrize(("name", "composed"), [("qwen2", True), ("llama-bpe", False)])
def test_unicode_is_composed_where_the_familys_tokenizer_does_so(tmp_path, name, composed):
    tokenizer = converted(byte_level(name), tmp_path)
    same = tokenizer.encode("i\u0308").ids[-2:] == tokenizer.encode("\u00ef").ids[-2:]
    assert same == composed


def test_phi_3s_control_tokens_take_the_white_space_behind_them(tmp_path):
    write_tokenizer(sentencepiece() | {"general.name": "Phi-3 mini"}, tmp_path)
    added = AutoTokenizer.from_pretrained(tmp_path).added_tokens_decoder
    assert [added[at].rstrip for at in range(4)] == [False, False, True, True]


def test_a_token_that_only_looks_like_an_end_stays_text(tmp_path):
    metadata = byte_level()
    metadata["tokenizer.ggml.tokens"].append("</s>")
    metadata["tokenizer.ggml.token_type"].append(NORMAL)
    write_tokenizer(metadata, tmp_path)
    assert "</s>" not in AutoTokenizer.from_pretrained(tmp_path).get_added_vocab()


def test_typed_control_tokens_are_text_and_user_defined_ones_are_tokens(tmp_path):
    tokenizer = converted(byte_level(), tmp_path)
    for text, ids in RESULTS["added_tokens"]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids
    tokenizer.encode_special_tokens = False
    assert tokenizer.encode("<|end|><tool>", add_special_tokens=False).ids == [1, 2]


def test_tokens_that_end_an_answer_are_special_whatever_their_type(tmp_path):
    metadata = byte_level()
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    tokens += ["<|im_end|>", "<end_of_turn>"]
    kinds += [NORMAL, USER_DEFINED]
    write_tokenizer(metadata, tmp_path)
    added = AutoTokenizer.from_pretrained(tmp_path).added_tokens_decoder
    assert all(added[len(tokens) - at].special for at in (1, 2))


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_merges_by_score_and_falls_back_to_bytes(tmp_path, prefix):
    tokenizer = converted(sentencepiece(add_space_prefix=prefix), tmp_path)
    for text, ids in RESULTS["sentencepiece"][str(prefix)]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids, text


def test_sentencepiece_puts_bos_and_a_space_in_front_unless_told_otherwise(tmp_path):
    write_tokenizer(sentencepiece(), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the")["input_ids"]) == ["<s>", "▁the"]
    assert tokenizer.decode(tokenizer("in the é☺")["input_ids"], skip_special_tokens=True) == "in the é☺"


def test_runs_of_spaces_are_named_as_in_the_familys_tokenizer(tmp_path):
    write_tokenizer(sentencepiece(add_space_prefix=False), tmp_path)
    vocabulary = AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    assert "▁▁" in vocabulary
    assert "  " not in vocabulary


@pytest.mark.parametrize("metadata", [byte_level("qwen2"), byte_level("smollm"), sentencepiece()])
@pytest.mark.parametrize("model_type", ["llama", "gemma3_text", "mistral"])
def test_no_class_replaces_a_rule_of_the_file(tmp_path, metadata, model_type):
    folder = write_model(tmp_path / "model", config={"model_type": model_type})
    write_tokenizer(metadata, folder)
    files = read_model_files(folder)
    assert files.replaced is None
    filed = TokenizersBackend(tokenizer_file=str(folder / "tokenizer.json"))
    assert replaced_rules(cast("TokenizersBackend", files.tokenizer), filed) == []


def test_roles_are_named_by_their_ids(tmp_path):
    write_tokenizer(byte_level(padding_token_id=1, unknown_token_id=10**6), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    roles = tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token
    assert roles == ("<|bos|>", "<|end|>", "<|end|>", None)


def test_fillers_up_to_the_models_width_are_left_out(tmp_path):
    metadata = byte_level()
    tokens = metadata["tokenizer.ggml.tokens"]
    width = len(tokens)
    tokens.append(f"[PAD{width}]")
    metadata["tokenizer.ggml.token_type"].append(UNUSED)
    write_tokenizer(metadata | {"tokenizer.ggml.padding_token_id": width}, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert (len(tokenizer), tokenizer.pad_token) == (width, None)


@pytest.mark.parametrize(
    ("keys", "template"),
    [({"": "a", ".tool_use": "b"}, "a"), ({".tool_use": "b"}, "b"), ({".rag": "c"}, None), ({}, None)],
)
def test_the_chat_template_is_that_without_a_name(tmp_path, keys, template):
    write_tokenizer(
        byte_level() | {f"tokenizer.chat_template{key}": text for key, text in keys.items()}, tmp_path
    )
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == template


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "tokenizer.ggml.model is None"),
        (byte_level(model="t5"), "tokenizer.ggml.model is 't5', and those converted are gpt2, llama"),
        (byte_level("kimi-k2"), "tokenizer.ggml.pre is 'kimi-k2', and those known are bailingmoe, "),
        (byte_level(None), "it has no tokenizer.ggml.pre, and those known are "),
        (byte_level(merges=None), "it has no tokenizer.ggml.merges"),
        (byte_level(merges=["ab"]), "its merge 'ab' has one part"),
        (byte_level(merges=["a €"]), "its vocabulary and merges do not fit"),
        (byte_level(tokens=None), "it has no tokenizer.ggml.tokens"),
        (byte_level(token_type=None), "it has no tokenizer.ggml.token_type"),
        (byte_level(tokens=["a", "b", "a"], token_type=[1, 1, 1]), "it has the token 'a' 2 times"),
        (byte_level(token_type=[1, 1]), "tokens and 2 types of them"),
        (byte_level(add_eos_token=True, eos_token_id=None), "adds the eos_token to each text and names none"),
        (byte_level("llama-bpe", bos_token_id=None), "adds the bos_token to each text and names none"),
        (sentencepiece(scores=None), "it has no tokenizer.ggml.scores"),
        (sentencepiece(scores=[0.0]), "tokens and 1 scores of them"),
        (sentencepiece(remove_extra_whitespaces=True), "remove_extra_whitespaces changes text"),
        (sentencepiece(precompiled_charsmap=[1, 2]), "precompiled_charsmap changes text"),
        (
            sentencepiece(tokens=["<unk>", "a"], token_type=[2, 1], scores=[0.0, 0.0]),
            "no token for 256 of the bytes",
        ),
    ],
)
def test_what_cannot_be_converted_exactly_is_named(tmp_path, metadata, words):
    with pytest.raises(UnknownTokenizerError) as caught:
        write_tokenizer(metadata, tmp_path)
    assert words in str(caught.value)
    assert not any(tmp_path.iterdir())
