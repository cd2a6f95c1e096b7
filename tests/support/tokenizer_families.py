"""One tiny tokenizer of each family: decoders of the tokenizers library, and classes written in Python."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers
from tokenizers.decoders import Decoder
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from transformers import ByT5Tokenizer, CTRLTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tests.support.tiny_pair import byte_level_tokenizer

_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LETTERS = ["▁", *"abcdefghijklmnopqrstuvwxyz.,", "▁the", "th", "▁▁", "é", "漢", "\ufffd", "\n"]


def byte_fallback(*steps: Decoder) -> PreTrainedTokenizerFast:
    """Return a SentencePiece-like BPE with a token for every byte, with `steps` as its decoder."""
    pieces = ["<unk>", "<s>", "</s>", *_BYTES, *_LETTERS]
    model = BPE(_numbered(pieces), [("t", "h")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    backend = Tokenizer(model)
    backend.normalizer = normalizers.Replace(" ", "▁")
    return _fast(backend, decoders.Sequence(list(steps)))


def _llama() -> PreTrainedTokenizerFast:
    return byte_fallback(
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    )


def _gemma() -> PreTrainedTokenizerFast:
    return byte_fallback(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse())


def _unigram() -> PreTrainedTokenizerFast:
    pieces = [(piece, -float(at)) for at, piece in enumerate(["<unk>", "<s>", "</s>", *_LETTERS, *_BYTES])]
    backend = Tokenizer(Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    return _fast(backend, decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]))


def _metaspace() -> PreTrainedTokenizerFast:
    return _fast(
        Tokenizer(WordLevel(_numbered(["<unk>", "<s>", "</s>", *_LETTERS]), "<unk>")), decoders.Metaspace()
    )


def _word_piece() -> PreTrainedTokenizerFast:
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        "the",
        "##ing",
        "##s",
        "dog",
        ".",
        "n",
        "'",
        "do",
        "not",
        "漢",
        "\ufffd",
    ]
    return _fast(Tokenizer(WordPiece(_numbered(pieces), unk_token="<unk>")), decoders.WordPiece())


def _end_of_word() -> PreTrainedTokenizerFast:
    pieces = ["<unk>", "<s>", "</s>", "the</w>", "th", "dog</w>", ".</w>", "漢", "\ufffd</w>"]
    return _fast(Tokenizer(WordLevel(_numbered(pieces), "<unk>")), decoders.BPEDecoder())


def _repeats_fused() -> PreTrainedTokenizerFast:
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "a", "b", "|", "漢"]
    return _fast(Tokenizer(WordLevel(_numbered(pieces), "<unk>")), decoders.CTC())


def _no_decoder() -> PreTrainedTokenizerFast:
    return _fast(Tokenizer(WordLevel(_numbered(["<unk>", "<s>", "</s>", "one", "two", "漢"]), "<unk>")), None)


def _rewriting() -> PreTrainedTokenizerFast:
    steps = [decoders.Fuse(), decoders.Replace("ab", "X"), decoders.Strip(" ", 1, 0)]
    pieces = ["<unk>", "<s>", "</s>", "a", "b", " ", "c"]
    return _fast(Tokenizer(WordLevel(_numbered(pieces), "<unk>")), decoders.Sequence(steps))


def _python_bytes() -> ByT5Tokenizer:
    return ByT5Tokenizer(extra_ids=4)


def _python_words() -> CTRLTokenizer:
    """Tokens that end in "@@" are joined to the next one."""
    pieces = ["<unk>", "the", "do@@", "g", "dog", "s@@", "漢", "\ufffd"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps(_numbered(pieces)), encoding="utf-8")
        merges.write_text("#version: 0.2\nt h\n", encoding="utf-8")
        return CTRLTokenizer(str(vocabulary), str(merges))


LLAMA = "byte fallback, as Llama 2"
FAMILIES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte-level": byte_level_tokenizer,
    LLAMA: _llama,
    "byte fallback, as Gemma": _gemma,
    "byte fallback, Unigram": _unigram,
    "Metaspace": _metaspace,
    "WordPiece": _word_piece,
    "end of word": _end_of_word,
    "CTC": _repeats_fused,
    "no decoder": _no_decoder,
    "replaces across tokens": _rewriting,
    "bytes in Python": _python_bytes,
    "words in Python": _python_words,
}


@cache
def family(name: str) -> PreTrainedTokenizerBase:
    """Return the family's tokenizer, the same one each time."""
    return FAMILIES[name]()


def _numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: at for at, piece in enumerate(pieces)}


def _fast(backend: Tokenizer, decoder: Decoder | None) -> PreTrainedTokenizerFast:
    if decoder is not None:
        backend.decoder = decoder
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
