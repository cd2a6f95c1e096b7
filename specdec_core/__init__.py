"""SpecDec Chat's engine: exact speculative decoding whose every draft can be looked at.

Names are loaded when first used, so that listing presets does not import torch.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "Engine": "engine",
    "EngineInfo": "loading.assemble",
    "IncompatiblePairError": "errors",
    "LoadCancelledError": "errors",
    "LoadError": "errors",
    "PairReport": "gate.report",
    "PairUncheckableError": "errors",
    "Preset": "presets",
    "PresetError": "errors",
    "PromptError": "errors",
    "Result": "engine",
    "Round": "trace",
    "Session": "session",
    "Settings": "settings",
    "SettingsError": "errors",
    "SpecDecError": "errors",
    "Stats": "trace",
    "Token": "trace",
    "check_pair": "gate.check",
    "list_presets": "presets",
    "load_presets": "presets",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
