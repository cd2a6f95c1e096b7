"""Prints the share of a text's tokens that a drafter's short output layer knows, by the size of the layer.

    python -m tests.support.vocabulary_coverage TOKENIZER_FOLDER TEXT...

Each TEXT is a UTF-8 file, or a folder whose files are read in the order of their names. The layers have the
lowest ids, as `drafter_vocabulary` keeps them where a preset names no text. Knows nothing of models.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

SIZES = (8192, 16384, 32768, 65536)
MOST_CHARACTERS = 2_000_000
_PIECE = 100_000
"""Characters that are tokenized together; long texts are slow in one piece."""


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the ids of a text's first MOST_CHARACTERS characters, without control tokens around them."""
    text = text[:MOST_CHARACTERS]
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    return [token_id for piece in pieces for token_id in tokenizer.encode(piece, add_special_tokens=False)]


def coverage(ids: Sequence[int], size: int) -> float:
    """Return the share of `ids` below `size`."""
    return sum(token_id < size for token_id in ids) / len(ids)


def read_text(path: Path) -> str:
    """Return the text of a file, or of all files in a folder; bytes that are no UTF-8 are left out."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return "\n".join(file.read_text(encoding="utf-8", errors="ignore") for file in files)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a Markdown table, one row a text."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.vocabulary_coverage")
    parser.add_argument("tokenizer", type=Path, help="folder of a tokenizer")
    parser.add_argument("texts", type=Path, nargs="+", metavar="TEXT", help="file or folder")
    options = parser.parse_args(arguments)
    tokenizer = AutoTokenizer.from_pretrained(str(options.tokenizer), local_files_only=True)
    print(f"| {options.tokenizer.name}, {len(tokenizer):,} ids | {' | '.join(f'{n:,}' for n in SIZES)} |")
    print("|---" * (1 + len(SIZES)) + "|")
    for path in options.texts:
        text = read_text(path)
        if not text:
            parser.error(f"{path} has no text.")
        ids = token_ids(tokenizer, text)
        print(f"| {path.stem} | {' | '.join(f'{coverage(ids, size):.1%}' for size in SIZES)} |")


if __name__ == "__main__":
    main()
