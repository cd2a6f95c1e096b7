"""Settings of an answer as controls. Names, labels, help and ranges are those of sd.SETTINGS.

Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

import specdec_core as sd

from .context_room import require_room


@dataclass(frozen=True)
class Widget:
    """The page's own choices for a setting's control, over those of its declaration.

    `low` and `high` narrow the range. `step` makes a slider of a number. `choice_labels` are by word.
    `empty` is the value of an emptied box. One that is not `visible` is shown where the loaded pair has a use
    for it.
    """

    low: float | None = None
    high: float | None = None
    step: float | None = None
    choice_labels: Mapping[str, str] = field(default_factory=dict)
    placeholder: str | None = None
    empty: Any = None
    visible: bool = True


WIDGETS: Mapping[str, Widget] = {
    "gamma": Widget(step=1),
    "temperature": Widget(high=2, step=0.05),
    "max_new_tokens": Widget(),
    "verification": Widget(),
    # Browsers represent whole numbers exactly up to 2**53 - 1.
    "seed": Widget(low=0, high=2**53 - 1, placeholder="empty: another one each time"),
    "drafting": Widget(
        choice_labels={"model": "the drafter", "ngram": "repetition (n-gram)", "both": "both"}
    ),
    "top_p": Widget(low=0.01, step=0.01),
    "top_k": Widget(empty=0),
    "min_p": Widget(high=0.99, step=0.01),
    "typical_p": Widget(low=0.01, step=0.01),
    "repetition_penalty": Widget(low=0.5, high=2, step=0.05),
    "frequency_penalty": Widget(step=0.1),
    "presence_penalty": Widget(step=0.1),
    "alternatives": Widget(step=1),
    "thinking": Widget(choice_labels={"auto": "the model's default"}, visible=False),
}
"""Widgets in the order of the panel. A setting without one follows as a plain box or radio buttons."""

WORD_CONTROLS = {
    "auto": (
        "Choose the draft length as it goes",
        "From measured times and acceptance; the slider is ignored then.",
    )
}
"""Label and help of the checkbox that stands for a word in place of a number."""


def _offered() -> tuple[str, ...]:
    """Return the settings that have a control, in the order of the panel: all with one value."""
    names = [*WIDGETS, *(name for name in sd.SETTINGS if name not in WIDGETS)]
    one_value = (sd.WholeNumber, sd.Number, sd.Choice)
    return tuple(name for name in names if isinstance(sd.SETTINGS[name].values, one_value))


@dataclass(frozen=True)
class Panel:
    """Controls for some settings. `help` and `low` replace the declared help and range of a setting."""

    names: tuple[str, ...] = field(default_factory=_offered)
    help: Mapping[str, str] = field(default_factory=dict)
    low: Mapping[str, float] = field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the controls in their order; a checkbox for a word is named `{word}_{setting}`."""
        fields: list[str] = []
        for name in self.names:
            word = _word(name)
            fields += [name] if word is None else [name, f"{word}_{name}"]
        return tuple(fields)

    def controls(self, start: sd.Settings) -> list[Any]:
        """Create the components inside the Blocks being built, two a row, with the values of `start`."""
        values = dict(zip(self.fields, self.values(start), strict=True))
        components: list[Any] = []
        for at in range(0, len(self.fields), 2):
            with gr.Row(elem_classes="settings-row"):
                components += [self._control(field, values[field]) for field in self.fields[at : at + 2]]
        return components

    def values(self, settings: sd.Settings) -> list[Any]:
        """Return the values of the controls for `settings`, in the order of `fields`."""
        values: list[Any] = []
        for name in self.names:
            value, word = getattr(settings, name), _word(name)
            if word is None:
                values.append(value)
            else:
                values += [sd.SETTINGS[name].default if value == word else value, value == word]
        return values

    def settings(self, defaults: sd.Settings, values: Sequence[Any], context_length: int) -> sd.Settings:
        """Return `defaults` with the values of the controls, as browsers send them.

        Raises SettingsError with the field's label. A value that is the default is not checked: presets may
        have values beyond the ranges of the controls.
        """
        by_field = dict(zip(self.fields, values, strict=True))
        changes = {}
        for name in self.names:
            word = _word(name)
            if word is not None and by_field[f"{word}_{name}"]:
                changes[name] = word
                continue
            changes[name] = value = _parsed(name, by_field[name])
            if value != getattr(defaults, name):
                self._check(name, value, context_length)
        return replace(defaults, **changes)

    def _check(self, name: str, value: Any, context_length: int) -> None:
        label, values = sd.SETTINGS[name].label, self._range(name)
        if name == "max_new_tokens" and value is not None:
            require_room(value, context_length, label)
        optional = isinstance(values, sd.WholeNumber) and values.optional
        if value is None and not optional:
            raise sd.SettingsError(f"{label} is empty. Enter a value, or take the default again.")
        values.check(label, value)

    def _range(self, name: str) -> sd.Values:
        """Return the values that a setting's control takes: a number's are its widget's, without words."""
        values, widget = sd.SETTINGS[name].values, _widget(name)
        low, high = self.low.get(name, widget.low), widget.high
        if not isinstance(values, sd.WholeNumber | sd.Number):
            return values
        if isinstance(values, sd.WholeNumber):
            values = replace(values, word=None)
        elif low is not None or high is not None:
            values = replace(
                values, open_low=values.open_low and low is None, open_high=values.open_high and high is None
            )
        return replace(
            values, low=values.low if low is None else low, high=values.high if high is None else high
        )

    def _control(self, name: str, value: Any) -> Any:
        if name not in sd.SETTINGS:
            label, info = WORD_CONTROLS[name.partition("_")[0]]
            return gr.Checkbox(value=value, label=label, info=info)
        setting, widget = sd.SETTINGS[name], _widget(name)
        label, info = setting.label, self.help.get(name, setting.help)
        match self._range(name):
            case sd.Choice(words):
                choices = [(widget.choice_labels.get(word, word), word) for word in words]
                return gr.Radio(choices, value=value, label=label, info=info, visible=widget.visible)
            case sd.WholeNumber(low, high) | sd.Number(low, high):
                if widget.step is not None:
                    return gr.Slider(low, high, value=value, step=widget.step, label=label, info=info)
                return gr.Number(
                    value=value, minimum=low, placeholder=widget.placeholder, label=label, info=info
                )
        raise TypeError(f"{name} has no control: {setting.values}")


def _widget(name: str) -> Widget:
    return WIDGETS.get(name, Widget())


def _word(name: str) -> str | None:
    values = sd.SETTINGS[name].values
    return values.word if isinstance(values, sd.WholeNumber) else None


def _parsed(name: str, value: Any) -> Any:
    """Convert a control's value: browsers send whole numbers as floats, and None for an emptied box."""
    if value is None:
        return _widget(name).empty
    whole = isinstance(sd.SETTINGS[name].values, sd.WholeNumber)
    return int(value) if whole and isinstance(value, float) and value.is_integer() else value


CHAT_PANEL = Panel()
"""All settings that have a control."""
