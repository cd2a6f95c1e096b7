"""Pre-tokenizers by their names in GGUF files (`tokenizer.ggml.pre`), as parts of tokenizer.json.

Names and flags are llama.cpp's (src/llama-vocab.cpp). The parts are those of each family's tokenizer.json,
so that both files of a family compare equal. Knows nothing of vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_Part = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """Steps in front of a byte-level BPE, and the defaults that a name implies.

    `composes`: Unicode is normalized to NFC. `ignores_merges`: a piece that the vocabulary has as a whole is
    one token. `adds_bos`: a text begins with the BOS token unless the metadata says otherwise.
    """

    steps: tuple[_Part, ...]
    composes: bool = False
    ignores_merges: bool = False
    adds_bos: bool = False

    @property
    def part(self) -> _Part:
        """The pre-tokenizer of tokenizer.json."""
        if len(self.steps) == 1:
            return self.steps[0]
        return {"type": "Sequence", "pretokenizers": list(self.steps)}

    @property
    def normalizer(self) -> _Part | None:
        """The normalizer of tokenizer.json."""
        return {"type": "NFC"} if self.composes else None


def _split(*patterns: str) -> tuple[_Part, ...]:
    """Splits by the patterns one after the other, and the step to bytes."""
    splits = (
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    )
    return (*splits, _byte_level(use_regex=False))


def _byte_level(*, use_regex: bool) -> _Part:
    """The bytes as printable characters, with `use_regex` after GPT-2's own split."""
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _digits(*, individual: bool) -> _Part:
    return {"type": "Digits", "individual_digits": individual}


_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CL100K = rf"{_ENDINGS}|{_WORD}|\p{{N}}{{1,3}}|{_SIGNS}|{_SPACES}"
_QWEN2 = rf"{_ENDINGS}|{_WORD}|\p{{N}}|{_SIGNS}|{_SPACES}"
_QWEN35 = (
    rf"{_ENDINGS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_UP_TO_LOWER, _UPPER_FIRST = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}{least}{_LOWER}{most}" for least, most in ("*+", "+*")
)
_SIGNS_AND_SLASHES = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN = rf"{_UP_TO_LOWER}|{_UPPER_FIRST}|\p{{N}}|{_SIGNS_AND_SLASHES}|{_SPACES}"
_O200K = rf"{_UP_TO_LOWER}{_ENDINGS}?|{_UPPER_FIRST}{_ENDINGS}?|\p{{N}}{{1,3}}|{_SIGNS_AND_SLASHES}|{_SPACES}"
_LINE_ENDS = "\r\n"
"""Line ends as characters, as some families write them in their patterns in place of escapes."""
_DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    rf"|[^{_LINE_ENDS}\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[{_LINE_ENDS}]*|\s*[{_LINE_ENDS}]+|\s+(?!\S)|\s+"
)
_SEED = (
    rf"{_ENDINGS}|[^{_LINE_ENDS}\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}"
    rf"| ?[^\s\p{{L}}\p{{N}}{_LINE_ENDS}]+|\s*[{_LINE_ENDS}]+|\s+(?!\S)|\s+"
)
_LING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
_HAN_KANA = "[一-龥\u3040-ゟ゠-ヿ]+"
_CJK = "[一-龥ࠀ-一가-\ud7ff]+"
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "Ὗ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ"
    "-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
_FULL_WIDTH_SIGNS = r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"

_BYTES = (_byte_level(use_regex=True),)
_GPT2 = PreTokenizer(_BYTES)
_GPT_NEOX = PreTokenizer(_BYTES, composes=True)
_STARCODER = PreTokenizer((_digits(individual=True), *_BYTES))
_FALCON = PreTokenizer(
    (
        {"type": "Punctuation", "behavior": "Contiguous"},
        *_BYTES,
        _digits(individual=False),
        *_split("[0-9][0-9][0-9]")[:1],
    )
)
_LLAMA3 = PreTokenizer(_split(_CL100K), ignores_merges=True, adds_bos=True)
_QWEN = PreTokenizer(_split(_QWEN2), composes=True)
_DEEPSEEK3 = PreTokenizer(_split(r"\p{N}{1,3}", _HAN_KANA, _DEEPSEEK))
_GPT4O = PreTokenizer(_split(_O200K))
_BAILING = PreTokenizer(_split(_LING))

PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    **dict.fromkeys(("gpt-2", "phi-2", "exaone4", "jais", "trillion", "granite-docling"), _GPT2),
    **dict.fromkeys(("mpt", "olmo"), _GPT_NEOX),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b"), _STARCODER),
    "command-r": PreTokenizer(_STARCODER.steps, composes=True),
    "falcon": _FALCON,
    "bloom": PreTokenizer(_split(r" ?[^(\s|[.,!?…。，、।۔،])]+")),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"), _LLAMA3
    ),
    **dict.fromkeys(("dbrx", "smaug-bpe", "glm4", "chatglm-bpe"), PreTokenizer(_split(_CL100K))),
    "minicpm5": PreTokenizer(_split(r"\p{N}{1,3}", _CL100K.replace("{1,3}", "+")), ignores_merges=True),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen"), _QWEN),
    **dict.fromkeys(
        ("stablelm2", "megrez", "hunyuan", "solar-open", "grok-2", "kormo"), PreTokenizer(_split(_QWEN2))
    ),
    "qwen35": PreTokenizer(_split(_QWEN35), composes=True),
    "deepseek-llm": PreTokenizer(
        (
            *_split(f"[{_LINE_ENDS}]", rf"\s?[{_CASED_LETTERS}]+", _FULL_WIDTH_SIGNS, r"\s+$", _CJK)[:-1],
            _digits(individual=True),
            _byte_level(use_regex=False),
        )
    ),
    "deepseek-coder": PreTokenizer(
        (
            *_split(f"[{_LINE_ENDS}]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK)[:-1],
            _digits(individual=True),
            _byte_level(use_regex=False),
        )
    ),
    **dict.fromkeys(("deepseek-v3", "hunyuan-dense", "joyai-llm"), _DEEPSEEK3),
    "tekken": PreTokenizer(_split(_TEKKEN), ignores_merges=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "minimax-m2"), _GPT4O),
    **dict.fromkeys(("bailingmoe", "bailingmoe2", "llada-moe"), _BAILING),
    "seed-coder": PreTokenizer(_split(_SEED)),
}
"""Pre-tokenizers by name. Other names are of families whose rules are not verified.

llama.cpp itself cuts otherwise than these in places: it knows neither NFC nor the letter cases and marks of
tekken's and gpt-4o's patterns beyond ASCII, nor ſ as an s, nor letters since Unicode 16; in deepseek-llm and
deepseek-coder it takes spaces beyond ASCII for no part of a word.
"""
