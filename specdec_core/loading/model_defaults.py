"""A model's own settings for answers, from its generation_config.json, where nobody has chosen others.

Knows which settings transformers has too; nothing of how they are applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import SettingsError
from ..hub.file_names import GENERATION_CONFIG
from ..sampling.filters import FILTERS, Bias
from ..settings import SETTINGS, Settings
from .json_files import values_of

_NAMES = {"temperature": "temperature"} | {
    each.transformers: each.setting
    for each in FILTERS
    if not isinstance(each, Bias) and each.transformers is not None
}
"""Settings by their names in generation_config.json."""
_NOT_FOLLOWED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "sequence_bias",
    "suppress_tokens",
    "top_h",
)
"""Keys of generation_config.json that change answers and have no setting here."""
_OFF = (None, 0, 1, [], False)
"""Values that switch one of them off."""


@dataclass(frozen=True, slots=True)
class ModelDefaults:
    """Settings that a model names, and `notes`: sentences on values that cannot be used."""

    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    def under(self, settings: Settings, chosen: Collection[str]) -> Settings:
        """Return `settings` with the model's values for all that are not `chosen`."""
        return replace(settings, **{name: v for name, v in self.settings.items() if name not in chosen})


def model_defaults(folder: str) -> ModelDefaults:
    """Return the defaults of the model in `folder`. `do_sample` false stands for temperature 0.

    A `do_sample` that is missing says nothing: many chat models leave it out.
    """
    config = values_of(folder, GENERATION_CONFIG)
    found: dict[str, Any] = {}
    notes: list[str] = []
    for key, name in _NAMES.items():
        value = config.get(key)
        if value is None:
            continue
        try:
            SETTINGS[name].values.check(key, value)
        except SettingsError as error:
            notes.append(f"The model's {GENERATION_CONFIG} is not followed in one value: {error}")
        else:
            found[name] = value
    if others := [key for key in _NOT_FOLLOWED if config.get(key) not in _OFF]:
        notes.append(f"The model's {GENERATION_CONFIG} sets {', '.join(others)}, which are not followed.")
    if config.get("do_sample") is False:
        found["temperature"] = 0.0
    return ModelDefaults(found, tuple(notes))
