"""Choice between a tokenizer as transformers' class builds it and as its tokenizer.json says.

Some classes take only the vocabulary from the file and put rules of their own in place of the rest. Knows
nothing of folders and downloads.
"""

from __future__ import annotations

import json

from transformers import TokenizersBackend

from .tokenizer_rules import cutting_differences, serialized


def replaced_rules(loaded: TokenizersBackend, filed: TokenizersBackend) -> list[str]:
    """Return names of what `loaded`, built by a class, has in place of what `filed` has from tokenizer.json.

    Empty if both cut text into the same ids and turn ids into the same text.
    """
    loaded_json, filed_json = serialized(loaded), serialized(filed)
    if loaded_json is None or filed_json is None or loaded_json == filed_json:
        return []
    differences = cutting_differences(json.loads(filed_json), json.loads(loaded_json))
    names = [difference.component for difference in differences]
    if not names and loaded.get_vocab() != filed.get_vocab():
        names = ["vocabulary"]
    return names


def name_ends(filed: TokenizersBackend, loaded: TokenizersBackend) -> None:
    """Give `filed` the class's names of the tokens that begin and end a text, where no file names any.

    Names that are not in its vocabulary are left out.
    """
    if filed.bos_token is not None or filed.eos_token is not None:
        return
    vocabulary = filed.get_vocab()
    if loaded.bos_token in vocabulary:
        filed.bos_token = loaded.bos_token
    if loaded.eos_token in vocabulary:
        filed.eos_token = loaded.eos_token
