"""Decision from the configuration alone whether a model can be paired, is served alone, or not at all.

Reads what transformers declares of a model type: its causal class, the layers of its cache, whether it is
stateful. What no declaration says is listed here, with the reason; `specdec families` checks all of it.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedConfig, PreTrainedModel, cache_utils
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ..errors import quote

Level = Literal["pair", "alone", "refused"]

CACHE_ARGUMENTS = ("cache", "past_key_values")
"""The forward's argument for a cache; transformers renamed it in 5.24, and the old name goes with 5.40."""

_KEEPS_KEYS_AND_VALUES = (cache_utils.DynamicLayer, cache_utils.DynamicSlidingWindowLayer)
_KEEPS_NOTHING = getattr(cache_utils, "DummyLayer", None)  # transformers 5.17 has none

_NOT_ROW_BY_ROW = {
    "cpmant": "puts a prompt of its own before each forward",
    "doge": "chooses the keys that it attends to for all rows of a forward together",
    "dory": "runs layers several times over one cache",
}
"""Model types whose forward over several rows is not that over one row after the other."""

_MOST_LAYERS = 10_000
"""More than any published model has; a configuration may name any number."""

_NO_TEXT = "makes audio codes, not text alone"
_REFUSED = {
    "blt": "reads bytes in patches, not tokens",
    "gemma4_assistant": "drafts from its target's hidden states, and continues no text by itself",
    "gemma4_unified_assistant": "drafts from its target's hidden states, and continues no text by itself",
    "git": "describes images: it masks a text by the image before it",
    "moshi": _NO_TEXT,
    "musicgen": _NO_TEXT,
    "musicgen_melody": _NO_TEXT,
    "prophetnet": "predicts several tokens ahead at once",
    "reformer": "hashes its prompt in chunks, which transformers' generate no longer supports",
    "xlm": "is an encoder: each token sees the ones after it",
    "xlnet": "predicts tokens in a permuted order",
}
"""Model types that do not continue a text token by token."""


@dataclass(frozen=True, slots=True)
class Serving:
    """The level that a model is served at, and the reason why it is not a higher one.

    "pair": its cache rewinds, so drafts can be taken back. "alone": as a target without drafts. The reason is
    a predicate, to be read after the model's name or role.
    """

    level: Level
    reason: str | None = None


def serving(config: PreTrainedConfig) -> Serving:
    """Decide for one configuration. Imports the model's class, reads no weights."""
    try:
        model_class = causal_class(config)
    except Exception as error:  # importing a model may fail for want of another package
        return Serving("refused", f"cannot be made here ({quote(error)}).")
    if model_class is None:
        return Serving(
            "refused",
            f"has model type {config.model_type}, which transformers has no causal language model for.",
        )
    if reason := _REFUSED.get(config.model_type) or _sees_both_sides(config):
        return Serving("refused", f"{reason}.")
    try:
        layers = _layers(config)
    except Exception:  # a number of layers that is absent or absurd, or a kind of layer that is unknown
        return Serving("refused", "has a configuration that describes no cache of layers.")
    if reason := _keeps_state(config, model_class, layers):
        return Serving("alone", f"{reason}, so drafts could not be taken back.")
    if reason := _NOT_ROW_BY_ROW.get(config.model_type):
        return Serving("alone", f"{reason}, so drafts could not be verified together.")
    return Serving("pair")


def causal_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that transformers loads for this configuration; None if there is none."""
    mapping: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    return mapping.get(type(config), None)


def attention_for(config: PreTrainedConfig) -> Literal["sdpa", "eager"]:
    """Return "sdpa", or "eager" for classes that SDPA does not serve (sinks, ALiBi) and for soft-capped
    attention logits (Gemma 2), which it cannot compute.
    """
    model_class = causal_class(config)
    capped = getattr(config.get_text_config(decoder=True), "attn_logit_softcapping", None)
    return "eager" if capped or model_class is None or not model_class._supports_sdpa else "sdpa"


def takes_dynamic_cache(model_class: Any) -> bool:
    """True if generate makes the cache for this class, rather than the class itself."""
    return model_class._supports_default_dynamic_cache()


def storing_layers(config: PreTrainedConfig) -> list[bool]:
    """Tell for each layer of the model's cache whether it stores keys and values."""
    return [isinstance(layer, cache_utils.DynamicLayer) for layer in _layers(config)]


def slides_everywhere(config: PreTrainedConfig) -> bool:
    """True if all layers have a sliding window without saying so one by one (Mistral)."""
    named = getattr(config.get_text_config(decoder=True), "layer_types", None)
    return named is None and all(getattr(layer, "is_sliding", False) for layer in _layers(config))


def _layers(config: PreTrainedConfig) -> list[Any]:
    """The layers of the cache that generate would make. Raises whatever an unchecked configuration causes."""
    count = config.get_text_config(decoder=True).num_hidden_layers
    if count > _MOST_LAYERS:
        raise ValueError(f"{count} layers")
    return cache_utils.DynamicCache(config=config).layers


def _sees_both_sides(config: PreTrainedConfig) -> str | None:
    """BERT and its kin are causal only as decoders; some causal models have the flag without its meaning."""
    has_both = hasattr(type(config), "add_cross_attention") and hasattr(type(config), "is_decoder")
    if has_both and not config.is_decoder:
        return "is an encoder (is_decoder is false in config.json): each token sees the ones after it"
    return None


def _keeps_state(
    config: PreTrainedConfig, model_class: type[PreTrainedModel], layers: list[Any]
) -> str | None:
    kinds = getattr(config.get_text_config(decoder=True), "layer_types", None)
    if model_class._is_stateful and kinds is None:
        return "keeps a recurrent state"
    if not any(name in inspect.signature(model_class.forward).parameters for name in CACHE_ARGUMENTS):
        return "has no cache of keys and values"
    if not takes_dynamic_cache(model_class):
        return "keeps its state in a cache of its own"
    kinds = kinds or [type(layer).__name__ for layer in layers]
    known = (*_KEEPS_KEYS_AND_VALUES, *([_KEEPS_NOTHING] if _KEEPS_NOTHING else []))
    unfit = {kind for kind, layer in zip(kinds, layers, strict=False) if type(layer) not in known}
    return f"keeps state that cannot be rewound (layers of {', '.join(sorted(unfit))})" if unfit else None
