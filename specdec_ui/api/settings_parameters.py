"""Settings as parameters of an endpoint, with types and descriptions from sd.SETTINGS. Knows no endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

import specdec_core as sd

from ..parts.context_room import require_room
from ..state.holder import Loaded

Endpoint = Callable[..., Iterator[dict[str, Any]]]


def with_settings(
    endpoint: Endpoint, names: Iterable[str] = sd.SETTINGS, defaults: Mapping[str, Any] | None = None
) -> Endpoint:
    """Return the endpoint with its parameter `settings` replaced by one for each setting in `names`.

    The endpoint then gets a dict of the settings in a client's request, completed by `defaults`. The
    docstring ends with a description of each parameter, for Gradio's documentation.
    """
    signature = inspect.signature(endpoint, eval_str=True)
    settings = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=(defaults or {}).get(name),
            annotation=_annotation(sd.SETTINGS[name].values),
        )
        for name in names
    ]
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += settings if parameter.name == "settings" else [parameter]
    public = signature.replace(parameters=parameters)

    @wraps(endpoint)
    def expanded(*arguments: Any, **named: Any) -> Iterator[dict[str, Any]]:
        bound = public.bind(*arguments, **named)
        bound.apply_defaults()
        values = {parameter.name: bound.arguments.pop(parameter.name) for parameter in settings}
        changes = {name: value for name, value in values.items() if value is not None}
        yield from endpoint(**bound.arguments, settings=changes)

    expanded.__signature__ = public  # pyright: ignore[reportAttributeAccessIssue] -- read by inspect
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    descriptions = [f"    {parameter.name}: {_description(parameter.name)}" for parameter in settings]
    summary = [inspect.getdoc(endpoint) or "", "", _words(parameter.name for parameter in settings), ""]
    expanded.__doc__ = "\n".join([*summary, "Parameters:", *descriptions])
    return expanded


def settings_of(loaded: Loaded, changes: Mapping[str, Any]) -> sd.Settings:
    """Return the pair's default settings with `changes`. Raises SettingsError with the parameter's name."""
    if "max_new_tokens" in changes:
        require_room(changes["max_new_tokens"], loaded.engine.info.context_length, "max_new_tokens")
    return replace(loaded.default_settings, **changes)


def _annotation(values: sd.Values) -> Any:
    match values:
        case sd.WholeNumber(word=None):
            return int | None
        case sd.WholeNumber():
            return int | str | None
        case sd.Number():
            return float | None
        case sd.Choice():
            return str | None
        case sd.Texts():
            return list[str] | None
        case sd.TokenIds():
            return list[int] | None
        case sd.TokenNumbers():
            return dict[str, float] | None


def _words(names: Iterable[str]) -> str:
    """Return a sentence on the words that settings take: Gradio's own documentation of an endpoint ends
    before "Parameters:".
    """
    parts = []
    for name in names:
        match sd.SETTINGS[name].values:
            case sd.Choice(words):
                parts.append(f"`{name}` is {' or '.join(words)}")
            case sd.WholeNumber(word=str(word)):
                parts.append(f'`{name}` is a number or "{word}"')
    return f"{'; '.join(parts)}." if parts else ""


def _description(name: str) -> str:
    setting = sd.SETTINGS[name]
    match setting.values:
        case sd.Choice(words):
            return f"{setting.help} One of {', '.join(words)}."
        case sd.WholeNumber(word=str(word)):
            return f'{setting.help} "{word}" is allowed too.'
    return setting.help
