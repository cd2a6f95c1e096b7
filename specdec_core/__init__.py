"""SpecDec Chat's engine: exact speculative decoding whose every draft can be looked at.

Names are loaded when first used, so that listing presets does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .chat_engine import (
        ChatEngine as ChatEngine,
        ChatSession as ChatSession,
        MeasuredCosts as MeasuredCosts,
        Peer as Peer,
        available_peers as available_peers,
    )
    from .engine import Engine as Engine, Result as Result
    from .errors import (
        AnswerError as AnswerError,
        IncompatiblePairError as IncompatiblePairError,
        LoadCancelledError as LoadCancelledError,
        LoadError as LoadError,
        PairUncheckableError as PairUncheckableError,
        PresetError as PresetError,
        PromptError as PromptError,
        SettingsError as SettingsError,
        SpecDecError as SpecDecError,
    )
    from .gate.check import check_pair as check_pair
    from .gate.report import Check as Check, PairReport as PairReport
    from .loading.engine_info import EngineInfo as EngineInfo
    from .metrics import Prediction as Prediction, predict as predict, summarize as summarize
    from .plain_text import find_surrogate as find_surrogate
    from .preset import Preset as Preset
    from .presets import list_presets as list_presets, load_presets as load_presets
    from .progress import Progress as Progress
    from .ratio import Ratio as Ratio, median_ratio as median_ratio
    from .session import Session as Session
    from .settings import (
        MAX_GAMMA as MAX_GAMMA,
        MOST_ALTERNATIVES as MOST_ALTERNATIVES,
        SETTINGS as SETTINGS,
        Choice as Choice,
        Drafting as Drafting,
        Number as Number,
        Setting as Setting,
        Settings as Settings,
        Texts as Texts,
        TokenIds as TokenIds,
        TokenNumbers as TokenNumbers,
        Values as Values,
        Verification as Verification,
        VocabPadding as VocabPadding,
        WholeNumber as WholeNumber,
    )
    from .strict_json import to_json as to_json
    from .svg import SvgElement as SvgElement, svg_element as svg_element
    from .text.prompting import Message as Message, Prompt as Prompt
    from .trace import (
        DRAFTED_KINDS as DRAFTED_KINDS,
        EMITTED_KINDS as EMITTED_KINDS,
        TESTED_KINDS as TESTED_KINDS,
        Alternative as Alternative,
        DraftSource as DraftSource,
        FinishReason as FinishReason,
        GammaReason as GammaReason,
        Round as Round,
        Stats as Stats,
        Token as Token,
        TokenKind as TokenKind,
        counted_rounds as counted_rounds,
        emitted_ids as emitted_ids,
        first_difference as first_difference,
    )
    from .units import counted as counted

_PUBLIC = {
    "chat_engine": ("ChatEngine", "ChatSession", "MeasuredCosts", "Peer", "available_peers"),
    "engine": ("Engine", "Result"),
    "errors": (
        "AnswerError",
        "IncompatiblePairError",
        "LoadCancelledError",
        "LoadError",
        "PairUncheckableError",
        "PresetError",
        "PromptError",
        "SettingsError",
        "SpecDecError",
    ),
    "gate.check": ("check_pair",),
    "gate.report": ("Check", "PairReport"),
    "loading.engine_info": ("EngineInfo",),
    "metrics": ("Prediction", "predict", "summarize"),
    "plain_text": ("find_surrogate",),
    "preset": ("Preset",),
    "presets": ("list_presets", "load_presets"),
    "progress": ("Progress",),
    "ratio": ("Ratio", "median_ratio"),
    "session": ("Session",),
    "settings": (
        "MAX_GAMMA",
        "MOST_ALTERNATIVES",
        "SETTINGS",
        "Choice",
        "Drafting",
        "Number",
        "Setting",
        "Settings",
        "Texts",
        "TokenIds",
        "TokenNumbers",
        "Values",
        "Verification",
        "VocabPadding",
        "WholeNumber",
    ),
    "strict_json": ("to_json",),
    "svg": ("SvgElement", "svg_element"),
    "text.prompting": ("Message", "Prompt"),
    "trace": (
        "DRAFTED_KINDS",
        "EMITTED_KINDS",
        "TESTED_KINDS",
        "Alternative",
        "DraftSource",
        "FinishReason",
        "GammaReason",
        "Round",
        "Stats",
        "Token",
        "TokenKind",
        "counted_rounds",
        "emitted_ids",
        "first_difference",
    ),
    "units": ("counted",),
}
"""Public names by the module that defines them; the imports above say the same to type checkers."""

_MODULE_OF = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_MODULE_OF)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
