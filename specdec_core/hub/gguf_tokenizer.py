"""Tokenizer in a GGUF file's metadata → tokenizer.json and the files beside it, as transformers reads them.

It cuts text as llama.cpp does (src/llama-vocab.cpp), by the parts that the family's tokenizer.json has. Knows
nothing of tensors, downloads or the gate.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from .file_names import TOKENIZER
from .gguf_pre_tokenizers import PRE_TOKENIZERS, PreTokenizer

_Json = dict[str, Any]

_KEY = "tokenizer.ggml."
_TEMPLATE = "tokenizer.chat_template"
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5
"""Types of tokens, as `tokenizer.ggml.token_type` numbers them."""
_ROLES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
"""Names of ids in the metadata by their names in tokenizer_config.json."""
_SENTENCEPIECE_IDS = {"bos_token": 1, "eos_token": 2, "unk_token": 0}
"""llama.cpp's ids where a file with SentencePiece's BPE has none."""
TURN_ENDS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"}
TURN_ENDS |= {"<end_of_turn>", "<end_of_utterance>", "<｜end▁of▁sentence｜>"}
"""Tokens that llama.cpp takes for control tokens whatever their type: some files have a wrong one. Others of
its list, as </s>, are text in some vocabularies.
"""
_SPACE = "▁"
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}


class UnknownTokenizerError(ValueError):
    """A tokenizer that cannot be converted exactly. The message is a clause that says what is unknown."""


def write_tokenizer(metadata: Mapping[str, Any], folder: Path) -> None:
    """Write a tokenizer's files into a folder: tokenizer.json, tokenizer_config.json, chat_template.jinja.

    The last one is left out if there is no template. Raises OSError, and UnknownTokenizerError if metadata is
    missing or names unknown rules.
    """
    kind = metadata.get(_KEY + "model")
    converters: dict[Any, Callable[[_Source], _Json]] = {
        "gpt2": _byte_level,
        "llama": _sentencepiece,
    }
    if kind not in converters:
        raise UnknownTokenizerError(
            f"its tokenizer.ggml.model is {kind!r}, and those converted are {', '.join(converters)}"
        )
    source = _Source(metadata)
    serialized = json.dumps(converters[kind](source), ensure_ascii=False)
    try:
        Tokenizer.from_str(serialized)
    except Exception as error:  # tokenizers raises no narrower class
        raise UnknownTokenizerError(f"its vocabulary and merges do not fit ({error})") from error
    folder.joinpath(TOKENIZER).write_text(serialized, encoding="utf-8")
    folder.joinpath("tokenizer_config.json").write_text(
        json.dumps(_config(source), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
    if (template := _template(metadata)) is not None:
        folder.joinpath("chat_template.jinja").write_text(template, encoding="utf-8")


class _Source:
    """The metadata's tokens, ids and flags. Raises UnknownTokenizerError if they are missing or damaged."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self.types: Sequence[int] = self.items("token_type")
        self.tokens: Sequence[str] = self._restored_tokens()
        self.require_one_each("types", self.types)
        self.vocabulary = {
            token: at
            for at, token in enumerate(self.tokens)
            # A converter's filling up to the model's width, which the family's tokenizer does not have.
            if not (self.types[at] == _UNUSED and token == f"[PAD{at}]")
        }

    @property
    def of_sentencepiece(self) -> bool:
        """True for SentencePiece's BPE, False for one over bytes."""
        return self.value("model") == "llama"

    @property
    def adds_space(self) -> bool:
        """True if SentencePiece puts a space in front of a text."""
        return self.value("add_space_prefix") is not False

    def require_one_each(self, name: str, values: Sequence[Any]) -> None:
        """Raise UnknownTokenizerError unless there are as many values as tokens."""
        if len(values) != len(self.tokens):
            raise UnknownTokenizerError(
                f"it has {len(self.tokens):,} tokens and {len(values):,} {name} of them"
            )

    def value(self, key: str) -> Any:
        """Return a value, None where there is none."""
        return self._metadata.get(_KEY + key)

    def items(self, key: str) -> list[Any]:
        """Return a list that has to be there."""
        values = self.value(key)
        if not isinstance(values, list) or not values:
            raise UnknownTokenizerError(f"it has no {_KEY}{key}")
        return values

    def role(self, name: str) -> str | None:
        """Return the token of a role, by the role's name in tokenizer_config.json."""
        default = _SENTENCEPIECE_IDS.get(name) if self.of_sentencepiece else None
        for token_id in (self.value(f"{_ROLES[name]}_token_id"), default):
            if isinstance(token_id, int) and 0 <= token_id < len(self.tokens):
                token = self.tokens[token_id]
                return token if token in self.vocabulary else None
        return None

    def _restored_tokens(self) -> list[str]:
        """Return the tokens as the family's tokenizer has them."""
        tokens = [token or f"[EMPTY_{at}]" for at, token in enumerate(self.items("tokens"))]
        if self.of_sentencepiece and not self.adds_space:
            # Converters write spaces for ▁ in these. Merges give the same runs, but not with a space in front
            # of texts: llama.cpp puts one behind each run as well.
            tokens = [
                token.replace(" ", _SPACE) if kind == _USER_DEFINED else token
                for token, kind in zip(tokens, self.types, strict=False)
            ] + tokens[len(self.types) :]
        if len(set(tokens)) < len(tokens):
            token, count = Counter(tokens).most_common(1)[0]
            raise UnknownTokenizerError(f"it has the token {token!r} {count} times")
        return tokens

    def added_tokens(self) -> list[_Json]:
        """Return the tokens that text is cut around before anything else."""
        # Phi-3's tokens take the white space behind them. No metadata says so.
        name = str(self._metadata.get("general.name")).lower()
        stripping = "phi-3" in name or "phi3" in name
        special = {self.role(name) for name in _ROLES} | TURN_ENDS
        added = []
        for token, at in self.vocabulary.items():
            is_special = self.types[at] in (_UNKNOWN, _CONTROL) or token in special
            if is_special or self.types[at] == _USER_DEFINED:
                rstrip = stripping and token not in ("<unk>", "<s>", "<|endoftext|>")
                flags = {"single_word": False, "lstrip": False, "rstrip": rstrip, "normalized": False}
                added.append({"id": at, "content": token, **flags, "special": is_special})
        return added

    def post_processor(self, *, adds_bos: bool) -> _Json | None:
        """Return the step that puts the first and the last token around a text. `adds_bos` is the default."""
        ends = []
        for name, default in (("bos_token", adds_bos), ("eos_token", False)):
            adds = self.value(f"add_{name}")
            wanted = default if adds is None else adds
            if wanted and self.role(name) is None:
                raise UnknownTokenizerError(f"it adds the {name} to each text and names none")
            ends.append(self.role(name) if wanted else None)
        bos, eos = ends
        if bos is None and eos is None:
            return None

        def template(sequence: str, type_id: int) -> Iterator[_Json]:
            if bos is not None:
                yield {"SpecialToken": {"id": bos, "type_id": type_id}}
            yield {"Sequence": {"id": sequence, "type_id": type_id}}
            if eos is not None:
                yield {"SpecialToken": {"id": eos, "type_id": type_id}}

        special = {
            token: {"id": token, "ids": [self.vocabulary[token]], "tokens": [token]}
            for token in ends
            if token
        }
        return {
            "type": "TemplateProcessing",
            "single": list(template("A", 0)),
            "pair": [*template("A", 0), *template("B", 1)],
            "special_tokens": special,
        }


def _byte_level(source: _Source) -> _Json:
    """tokenizer.json of a BPE over bytes."""
    rules = _pre_tokenizer(source.value("pre"))
    merges = [_merge(merge) for merge in source.items("merges")]
    return _tokenizer_json(
        source,
        {"ignore_merges": rules.ignores_merges, "vocab": source.vocabulary, "merges": merges},
        normalizer=rules.normalizer,
        pre_tokenizer=rules.part,
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        adds_bos=rules.adds_bos,
    )


def _pre_tokenizer(name: Any) -> PreTokenizer:
    """The pre-tokenizer of that name. llama.cpp takes one that is no family's where there is no name, with a
    warning that answers get worse. Such files are refused.
    """
    if name in PRE_TOKENIZERS:
        return PRE_TOKENIZERS[name]
    raise UnknownTokenizerError(
        ("it has no tokenizer.ggml.pre" if name is None else f"its tokenizer.ggml.pre is {name!r}")
        + f", and those known are {', '.join(sorted(PRE_TOKENIZERS))}"
    )


def _merge(merge: str) -> list[str]:
    """Both parts of a merge. The first may begin with the space that separates them."""
    at = merge.find(" ", 1)
    if at < 0:
        raise UnknownTokenizerError(f"its merge {merge!r} has one part")
    return [merge[:at], merge[at + 1 :]]


def _sentencepiece(source: _Source) -> _Json:
    """tokenizer.json of SentencePiece's BPE."""
    for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
        if source.value(key):
            raise UnknownTokenizerError(f"its {_KEY}{key} changes text before it is cut")
    unknown = source.role("unk_token")
    if unknown is None:
        raise UnknownTokenizerError("it names no unknown token")
    if missing := [name for name in map("<0x{:02X}>".format, range(256)) if name not in source.vocabulary]:
        raise UnknownTokenizerError(f"it has no token for {len(missing)} of the bytes, as {missing[0]}")
    options = {"unk_token": unknown, "fuse_unk": True, "byte_fallback": True}
    decoders: list[_Json] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    normalizer: _Json = _REPLACE
    pre_tokenizer = None
    if source.adds_space:  # as in Llama 2
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, _REPLACE]}
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    else:  # as in Gemma, whose split has nothing to do after its normalizer
        split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
        pre_tokenizer = {**split, "invert": False}
    return _tokenizer_json(
        source,
        {**options, "vocab": source.vocabulary, "merges": _merges(source)},
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        decoder={"type": "Sequence", "decoders": decoders},
        adds_bos=True,
    )


def _merges(source: _Source) -> list[tuple[str, str]]:
    """The merges of two tokens into a third, that with the highest score first.

    The merges into one token come in the order of transformers' converter, by which the families' files were
    made: that of ids, and since Gemma that of lengths.
    """
    scores = source.items("scores")
    source.require_one_each("scores", scores)
    vocabulary = source.vocabulary
    merges = []
    for token, at in vocabulary.items():
        # SentencePiece's score of these is 0; converters write another.
        score = 0.0 if source.types[at] == _USER_DEFINED else scores[at]
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in vocabulary and pair[1] in vocabulary]
        pairs.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        merges += ((score, *pair) for pair in pairs)
    if source.adds_space:
        merges.sort(key=lambda merge: merge[0], reverse=True)
    else:
        merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in merges]


def _tokenizer_json(
    source: _Source,
    model: _Json,
    *,
    normalizer: _Json | None,
    pre_tokenizer: _Json | None,
    decoder: _Json,
    adds_bos: bool,
) -> _Json:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": source.added_tokens(),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": source.post_processor(adds_bos=adds_bos),
        "decoder": decoder,
        "model": {"type": "BPE", **model},
    }


def _config(source: _Source) -> _Json:
    """tokenizer_config.json, with a class that takes the rules of tokenizer.json as they are."""
    roles = {name: token for name in _ROLES if (token := source.role(name)) is not None}
    return {"tokenizer_class": "TokenizersBackend", "clean_up_tokenization_spaces": False, **roles}


def _template(metadata: Mapping[str, Any]) -> str | None:
    """The chat template without a name. llama.cpp takes that for tools where there is none."""
    return metadata.get(_TEMPLATE, metadata.get(f"{_TEMPLATE}.tool_use"))
