"""Comparison of a GGUF file's tokenizer as we convert it with llama.cpp's own, on random strings.

    python scripts/compare_tokenizers.py FILE.gguf [--strings 10000] [--seed 0]

Needs the package xllamacpp. Text is encoded as typed: what spells a control token is text, also in llama.cpp
(parse_special false). A token that the file marks as user-defined is one token in llama.cpp and in the
converted tokenizer, but text in what a person types here. Such strings are counted on their own, and so are
those that no ids of the tokenizer give back: with a literal ▁ where that stands for a space, with a byte that
has no token (llama.cpp merges nothing across it), or changed by NFC, which llama.cpp does not know. llama.cpp
takes some tokens for control tokens by their names, as Gemma's </s>, which is HTML.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from tokenizers import Tokenizer
from transformers import TokenizersBackend

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from specdec_core.hub.gguf_files import header_of
from specdec_core.hub.gguf_tokenizer import write_tokenizer
from specdec_core.llama_cpp import package
from specdec_core.text.marks import Marks
from specdec_core.text.rendered_text import RenderedTextEncoder

SHOWN = 5
"""Differences that are printed."""
CONTROL_BY_NAME = ("</s>", "<eos>", "<EOT>", "[EOS]", "[EOT]")
"""Some of the tokens that llama.cpp takes for control tokens whatever their type."""
LONGEST = 12
"""Most pieces of a string."""
TEXT = (
    "the quick brown fox jumps over a lazy dog Hello World tokenizer antidisestablishmentarianism camelCase "
    "XMLHttpRequest SCREAMING_SNAKE naïve café Straße ÅNGSTRÖM Élan ÉCOLE ÉTÉa œuvre Привет мир Ёлка Γειά "
    "σου שלום עולם مرحبا بالعالم हिन्दी नमस्ते। বাংলা தமிழ் ภาษาไทย ລາວ မြန်မာ ខ្មែរ "
    "你好，世界。 漢字かな交じり文 カタカナ ｶﾀｶﾅ 안녕하세요 ㄱㄴㄷ ქართული "
    "Հայերեն አማርኛ ᏣᎳᎩ Ǆ ǅ ǆ ŉ ſ ﬁne ẞ İstanbul ıı e\u0301 a\u030a\u0327"
)
WORDS = TEXT.split()
CODE = (
    "def f(x_1): return {'a': [x ** 2, 0xFF]}\n",
    "for (int i = 0; i < n; ++i) {\n\t\tsum += a[i];\n}\n",
    '{"key": "value", "n": [1, 2.5e-3, null, true]}',
    "<div class='a'>&amp;</div><!-- x -->",
    "<table>\n<tr><td>1</td></tr>\n</table>",
    "SELECT * FROM t WHERE id >= 10 AND name LIKE '%a%';",
    "https://example.com/a/b?c=%20&d=1#e",
    "C:\\Users\\me\\file.txt",
    "user@example.com",
    "#include <stdio.h>\r\n",
    "    if x:\n        pass\n",
    "$ rm -rf /tmp/* && echo 'done' | tee log.txt",
    "\\frac{1}{2} \\alpha_{i}^{2}",
)
SPACES = (
    *(" ", "  ", "   ", "    ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", "\r", "\r\n", "\r\n\r\n", " \n "),
    *("\u00a0", "\u2028", "\u2029", "\u3000", "\u0085", "\u200b", "\ufeff", "\u1680", "\u2009", "\u202f"),
    *("\n \n", "\v", "\f", "\x1c", "\x1f", "\u180e", " " * 17, " " * 40, "\n" * 35, "\t" * 9),
)
ENDINGS = (
    *("'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'M", "'lL", "'D", "’s", "'x"),
    "'ſ",
)
NUMBERS = (
    *("²", "³", "½", "¼", "Ⅻ", "ⅷ", "①", "㉈", "٣٤٥", "१२३", "𝟘𝟙", "〇", "四", "𐄇", "٠", "৩", "0", "00"),
    *("1.5", "1,234,567"),
)
SIGNS = (
    *("!", "?!", "...", "…", "—", "--", "«»", "“”", "()", "[]", "{}", "<", ">", "<|", "|>", "@", "#", "$"),
    *("€", "%", "^", "&", "*", "_", "__", "=", "==", "+", "~", "`", "```", "|", "||", "\\", "/", "//", ":"),
    *(";", "'", '"', "''", "¿", "。", "、", "「」", "×", "÷", "±", "→", "∑", "√", "©", "™", "°", "§", "¶"),
    *("▁", "▁▁", "Ġ", "Ċ", "ﷺ", "\u0301", "\u20dd"),
)
EMOJI = ("😀", "👩‍👩‍👧", "🇩🇪", "✈️", "👍🏽", "❤️‍🔥", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "☺", "🤷🏾‍♂️", "\u200d", "\ufe0f")
LITERALS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<file_sep>", "<jupyter_code>", "<s>"),
    *("</s>", "<unk>", "<pad>", "<bos>", "<eos>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<unused7>"),
    *("<|eot_id|>", "<|begin_of_text|>", "[INST]", "[UNK]", "[multimodal]", "<think>", "</think>"),
    *("<tool_call>", "<0x0A>", "<0xFF>"),
)
RANGES = (
    *((0, 0x7F), (0x80, 0x2FF), (0x300, 0x2FFF), (0x3000, 0xD7FF), (0xE000, 0xFFFF)),
    (0x10000, 0x10FFFF),
)
"""Code points without the surrogates."""


def random_strings(count: int, seed: int) -> Iterator[str]:
    """Yield strings of many kinds, the first one empty; the same ones for the same seed."""
    draw = random.Random(seed)

    def character() -> str:
        return chr(draw.randint(*draw.choice(RANGES)))

    lists = (WORDS, WORDS, CODE, SPACES, SPACES, ENDINGS, NUMBERS, SIGNS, EMOJI, LITERALS)
    kinds: list[Callable[[], str]] = [
        *(lambda choices=choices: draw.choice(choices) for choices in lists),
        lambda: draw.choice(WORDS) + draw.choice(ENDINGS),
        lambda: draw.choice(WORDS).swapcase(),
        lambda: " " + draw.choice(WORDS),
        lambda: str(draw.randrange(10 ** draw.randint(1, 12))),
        lambda: draw.choice(SIGNS) * draw.randint(1, 9),
        lambda: draw.choice(SPACES) * draw.randint(1, 4),
        lambda: "".join(chr(draw.randint(0x20, 0x7E)) for _ in range(draw.randint(1, 8))),
        lambda: "".join(character() for _ in range(draw.randint(1, 5))),
    ]
    yield ""
    for _ in range(count - 1):
        pieces = [draw.choice(kinds)() for _ in range(draw.randint(1, LONGEST))]
        yield draw.choice(("", "", " ")).join(pieces)


class LlamaCppTokenizer:
    """llama.cpp's tokenizer of a GGUF file. Raises SettingsError if the package is missing."""

    def __init__(self, path: Path) -> None:
        xllamacpp = package()
        params: Any = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = 256
        params.n_parallel = 1
        params.warmup = False
        params.verbosity = -1
        self._server: Any = xllamacpp.Server(params)
        self._address = urlsplit(self._server.listening_address)

    def encode(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return the ids of a text without control tokens, after the beginning if `add_special`."""
        request = {"content": text, "add_special": add_special, "parse_special": False}
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
        with closing(connection):
            connection.request("POST", "/tokenize", json.dumps(request), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())["tokens"]


def compare(path: Path, count: int, seed: int) -> int:
    """Print the differences between both tokenizers of a file; return their number."""
    metadata = header_of(str(path)).metadata
    with TemporaryDirectory() as folder:
        write_tokenizer(metadata, Path(folder))
        tokenizer = TokenizersBackend.from_pretrained(folder)
    typed_text = RenderedTextEncoder(tokenizer)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if not token.special]
    parsed = json.loads(tokenizer.backend_tokenizer.to_str())
    backend = _special_as_text(parsed)
    for token in parsed["added_tokens"]:
        token["special"] |= token["content"] in CONTROL_BY_NAME
    by_name = _special_as_text(parsed)
    llama_cpp = LlamaCppTokenizer(path)
    differences, lossy, typed_otherwise, of_user_defined, as_control = [], [], [], 0, 0
    for text in random_strings(count, seed):
        theirs, ours = llama_cpp.encode(text), backend.encode(text, add_special_tokens=False).ids
        marks = Marks()
        typed = typed_text.encode(typed_text.mask(text, marks, of_model=False), marks)
        if ours != theirs:
            read_back = backend.decode(ours, skip_special_tokens=False)
            if by_name.encode(text, add_special_tokens=False).ids == theirs:
                as_control += 1
            elif read_back != text and (
                llama_cpp.encode(read_back) == by_name.encode(read_back, add_special_tokens=False).ids
            ):
                lossy.append((text, ours, theirs))
            else:
                differences.append((text, ours, theirs))
        if typed == ours:
            continue
        if any(literal in text for literal in added if literal.strip(" \n▁")):
            of_user_defined += 1
        else:
            typed_otherwise.append((text, typed, ours))
    print(f"{path.name}: {count:,} strings, seed {seed}")
    print(f"{len(differences):,} differ between the converted tokenizer and llama.cpp")
    _show(differences, tokenizer, "converted", "llama.cpp")
    print(
        f"{as_control:,} more have a user-defined token that llama.cpp takes for a control token by its name"
    )
    print(f"{len(lossy):,} more differ, but not after the converted tokenizer has changed the text")
    _show(lossy, tokenizer, "converted", "llama.cpp")
    print(f"{len(typed_otherwise):,} differ between typed text and the converted tokenizer")
    _show(typed_otherwise, tokenizer, "typed", "converted")
    print(f"{of_user_defined:,} more spell a user-defined token, which is text when typed")
    return len(differences) + len(typed_otherwise)


def _special_as_text(parsed: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a parsed tokenizer.json, to which what spells a special token is text."""
    tokenizer = Tokenizer.from_str(json.dumps(parsed))
    tokenizer.encode_special_tokens = True
    return tokenizer


def _show(
    differences: list[tuple[str, list[int], list[int]]], tokenizer: TokenizersBackend, left: str, right: str
) -> None:
    for text, ours, theirs in differences[:SHOWN]:
        start = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), 0)
        print(f"  {text!r:.200}")
        for name, ids in ((left, ours), (right, theirs)):
            excerpt = ids[max(start - 1, 0) : start + 6]
            print(f"    {name:>9}: {excerpt} {tokenizer.convert_ids_to_tokens(excerpt)}")


def main() -> None:
    """Run the comparison; exit with 1 if there are differences."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("file", type=Path, help="the GGUF file")
    parser.add_argument("--strings", type=int, default=10_000, help="number of strings (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the strings (%(default)s)")
    options = parser.parse_args()
    sys.exit(1 if compare(options.file, options.strings, options.seed) else 0)


if __name__ == "__main__":
    main()
