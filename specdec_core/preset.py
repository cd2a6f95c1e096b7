"""A preset: a pair of models with its settings, validated.

Knows nothing of files. Errors are pydantic's; presets.py puts them into words.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    ModelWrapValidatorHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError

from .errors import SettingsError
from .settings import SETTINGS, Quantization, Settings, VocabPadding

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
WebPage = Annotated[str, Field(pattern=r"^https://\S+$")]


def _settings(values: object) -> Settings:
    """Return the [settings] table as Settings. gamma defaults to "auto"; Settings validates the values."""
    if isinstance(values, Settings):
        return values
    if not isinstance(values, dict):
        raise PydanticCustomError("settings", "must be a table, [settings]")
    if unknown := [name for name in values if name not in SETTINGS]:
        raise PydanticCustomError(
            "settings", "has an {problem}", {"problem": unknown_key(unknown[0], SETTINGS)}
        )
    given: dict[str, Any] = {"gamma": "auto", **values}
    try:
        return Settings(**given)
    except SettingsError as error:
        raise PydanticCustomError("settings", "{problem}", {"problem": str(error)}) from error


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PresetModel(_Table):
    """One model of a preset. `model` is a Hub id, a GGUF file, or a folder.

    Paths are relative in the preset's file, absolute once read. `otherwise` is the Hub id that takes the
    place of a file in a Python package that is not installed. `quantization` applies on CUDA,
    `cpu_quantization` on a CPU whose runner has it; None stands for a GGUF file's own, else for none.
    """

    model: Text
    otherwise: Text | None = None
    revision: Text | None = None
    quantization: Quantization = "none"
    cpu_quantization: Quantization | None = None


class Preset(_Table):
    """A pair (or a target alone) that is known to work, with its description and its settings.

    `download_gb` is approximate, 0 where nothing is downloaded, as from installed packages. With
    `drafter_vocabulary` the drafter computes logits for that many tokens only, and for control tokens: the
    most frequent ones in the file `drafter_vocabulary_text`, or those of lowest id.
    """

    name: Text
    title: Text
    description: Text
    target: PresetModel
    drafter: PresetModel | None = None
    vocab_padding: VocabPadding = "refuse"
    drafter_vocabulary: int | None = Field(default=None, ge=1)
    drafter_vocabulary_text: Text | None = None
    takes_system_message: bool = True
    gated: bool = False
    license: Text
    license_page: WebPage | None = None
    download_gb: float = Field(default=0.0, ge=0)
    examples: tuple[Text, ...] = Field(default=(), strict=False)
    settings: Annotated[InstanceOf[Settings], BeforeValidator(_settings)] = _settings({})
    _chosen_settings: frozenset[str] = frozenset()

    @model_validator(mode="wrap")
    @classmethod
    def _with_chosen_settings(cls, data: Any, handler: ModelWrapValidatorHandler[Preset]) -> Preset:
        preset = handler(data)
        given = data.get("settings", {}) if isinstance(data, dict) else preset.settings
        preset._chosen_settings = frozenset(SETTINGS if isinstance(given, Settings) else given)
        return preset

    @property
    def chosen_settings(self) -> frozenset[str]:
        """Names of the settings that the preset states; the others may be the model's own."""
        return self._chosen_settings

    @model_validator(mode="after")
    def _fits_together(self) -> Preset:
        if self.gated and self.license_page is None:
            raise PydanticCustomError(
                "pair", "license_page is missing: a gated model needs the page to accept it on"
            )
        if self.drafter is None and self.settings.drafting != "ngram" and self.settings.gamma != 0:
            raise PydanticCustomError(
                "pair", 'settings.drafting must be "ngram" (or settings.gamma 0) where there is no [drafter]'
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the preset as values for JSON."""
        return self.model_dump(mode="json", exclude={"settings"}) | {"settings": asdict(self.settings)}


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the words for a key that is not known, with the closest known one or all of them."""
    names = [name for name in known if name != "name"]
    close = difflib.get_close_matches(key, names, n=1)
    return f"unknown key {key}" + (
        f"; did you mean {close[0]}?" if close else f"; the keys are {', '.join(names)}"
    )
