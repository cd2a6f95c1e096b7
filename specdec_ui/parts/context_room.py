"""The longest answer that the context of a loaded pair has room for."""

from __future__ import annotations

from dataclasses import replace

import specdec_core as sd


def fitted(settings: sd.Settings, context_length: int) -> sd.Settings:
    """Return the settings with a longest answer of at most `context_length` tokens."""
    return replace(settings, max_new_tokens=min(settings.max_new_tokens, context_length))


def require_room(max_new_tokens: object, context_length: int, name: str) -> None:
    """Raise SettingsError, with the setting's `name`, unless it is a number of tokens within the context."""
    values = sd.SETTINGS["max_new_tokens"].values
    assert isinstance(values, sd.WholeNumber)
    try:
        replace(values, high=min(values.high, context_length)).check(name, max_new_tokens)
    except sd.SettingsError as error:
        raise sd.SettingsError(
            f"{error} The context of the loaded pair has {context_length:,} tokens."
        ) from None
