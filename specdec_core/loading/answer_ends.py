"""Ids that end an answer: those that a model's files name, and the end of a turn that its template writes.

Values of configuration classes do not count: the default of LlamaConfig, id 2, is a word elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from ..hub.file_names import CONFIG, GENERATION_CONFIG
from ..text.template_probe import TemplateTraits
from .json_files import values_of

_TEXT_CONFIGS = ("text_config", "decoder", "generator")
"""Keys of the language model's part in the configuration of a multimodal model."""


def answer_ends(folder: str, tokenizer: PreTrainedTokenizerBase, template: TemplateTraits) -> frozenset[int]:
    """Return every id that ends an answer of the model in `folder`.

    Some chat models (Gemma as first published) name only <eos> as the end, though their template closes an
    answer with another token; that token ends an answer too.
    """
    turn_end = frozenset() if template.turn_end is None else frozenset({template.turn_end})
    return _named(folder, tokenizer) | turn_end


def _named(folder: str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """EOS ids of the generation config, else of the model's config, else of the tokenizer."""
    config = values_of(folder, CONFIG)
    parts = [config[key] for key in _TEXT_CONFIGS if isinstance(config.get(key), Mapping)]
    for values in (values_of(folder, GENERATION_CONFIG), *parts, config):
        if ids := _ids(values.get("eos_token_id")):
            return ids
    return _ids(tokenizer.eos_token_id)


def _ids(value: object) -> frozenset[int]:
    values = value if isinstance(value, list) else [value]
    return frozenset(token_id for token_id in values if isinstance(token_id, int))
