"""Settings of an answer: each declared once, with its label, its help and the values it takes.

The command line, the page and the API derive their options from these declarations. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, get_args

from .errors import SettingsError

Drafting = Literal["model", "ngram", "both"]
Verification = Literal["rejection", "coupled"]
Thinking = Literal["auto", "on", "off"]
THINKING: tuple[Thinking, ...] = get_args(Thinking)
Quantization = Literal["none", "nf4", "int8", "int4"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)
VocabPadding = Literal["refuse", "trim"]
"""Treatment of widths that differ by padding only: refuse, or cut both to the tokenizer's ids."""

MOST_ALTERNATIVES = 20
"""The most alternatives at a position."""
MAX_GAMMA = 16
"""The longest draft that is verified at once; beyond it even a perfect drafter gains next to nothing."""


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """An int from `low` to `high`, or the `word` where there is one; None too where `optional`."""

    low: int
    high: int
    word: str | None = None
    optional: bool = False

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these."""
        if (self.optional and value is None) or (isinstance(value, str) and value == self.word):
            return
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            word = f' or "{self.word}"' if self.word else ""
            raise SettingsError(
                f"{name} must be a whole number from {self.low} to {self.high}{word}, not {_excerpt(value)}."
            )


@dataclass(frozen=True, slots=True)
class Number:
    """A finite float from `low` to `high`; an open end is not itself allowed."""

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these."""
        # Infinity and NaN are outside of every range.
        if isinstance(value, int | float) and not isinstance(value, bool):
            above_low = value > self.low if self.open_low else value >= self.low
            below_high = value < self.high if self.open_high else value <= self.high
            if above_low and below_high:
                return
        lower = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        upper = f"below {self.high:g}" if self.open_high else f"at most {self.high:g}"
        raise SettingsError(f"{name} must be {lower} and {upper}, not {_excerpt(value)}.")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these."""
        if not isinstance(value, str) or value not in self.words:
            raise SettingsError(
                f"{name} must be {' or '.join(map(repr, self.words))}, not {_excerpt(value)}."
            )


@dataclass(frozen=True, slots=True)
class Texts:
    """A list of non-empty strings."""

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these."""
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) and text for text in value):
            raise SettingsError(f"{name} must be a list of non-empty strings, not {_excerpt(value)}.")


@dataclass(frozen=True, slots=True)
class TokenIds:
    """A list of ids of tokens."""

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these."""
        if not isinstance(value, list | tuple) or not all(map(_is_token_id, value)):
            raise SettingsError(f"{name} must be a list of token ids (0, 1, ...), not {_excerpt(value)}.")


@dataclass(frozen=True, slots=True)
class TokenNumbers:
    """Numbers from `low` to `high` by the id of a token."""

    low: float
    high: float

    def check(self, name: str, value: object) -> None:
        """Raise SettingsError if `value` is not one of these. An id may be spelled, as in JSON: "15"."""
        if not isinstance(value, Mapping):
            raise SettingsError(
                f"{name} must map token ids to numbers, as in {{15: -2.5}}, not be {_excerpt(value)}."
            )
        if len({_spelled_out(key) for key in value}) < len(value):
            raise SettingsError(f"{name} names a token twice: {_excerpt(value)}.")
        for key, number in value.items():
            if not _is_token_id(_spelled_out(key)):
                raise SettingsError(f"{name} must have token ids (0, 1, ...) as keys, not {_excerpt(key)}.")
            Number(self.low, self.high).check(f"{name} of token {_excerpt(key)}", number)

    def by_id(self, value: Mapping[Any, float]) -> dict[int, float]:
        """Return the numbers of a valid value by ids that are ints."""
        return {_spelled_out(key): number for key, number in value.items()}


Values = WholeNumber | Number | Choice | Texts | TokenIds | TokenNumbers


def _is_token_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _spelled_out(key: Any) -> Any:
    """The int that a key of a JSON object spells; any other key unchanged."""
    return int(key) if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 11 else key


def _excerpt(value: object) -> str:
    """The value for a message: shortened, or its type where it has no text (an int of 5,000 digits)."""
    try:
        return f"{value!r:.100}"
    except Exception:  # an object may raise anything
        return f"{type(value).__name__} without a text"


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of one field of Settings.

    `label` (a noun) and `help` (a sentence) are what people read; `values` are the ones it takes.
    """

    name: str
    label: str
    help: str
    values: Values
    default: Any


def _declare(default: Any, label: str, help: str, values: Values) -> Any:
    metadata = {"label": label, "help": help, "values": values}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, hash=False, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """One answer's settings. Raises SettingsError, naming the field, when a value is out of range.

    temperature 0 is greedy; the default of a filter (top_k 0, top_p 1, repetition_penalty 1, ...) switches it
    off; seed None draws a fresh seed; gamma 0 is the baseline, "auto" lets measured times and acceptance
    decide.
    """

    max_new_tokens: int = _declare(
        200, "Longest answer", "The most tokens that an answer may have.", WholeNumber(1, 1_000_000)
    )
    temperature: float = _declare(
        0.8,
        "Temperature",
        "0 always takes the likeliest token; more is more varied.",
        Number(0, 100),
    )
    top_k: int = _declare(
        0, "Top-k", "Only this many of the likeliest tokens. 0 is off.", WholeNumber(0, 2**31)
    )
    top_p: float = _declare(
        1.0,
        "Top-p",
        "Only the likeliest tokens that together reach this share. 1 is off.",
        Number(0, 1, open_low=True),
    )
    min_p: float = _declare(
        0.0,
        "Min-p",
        "Only tokens at least this likely beside the likeliest. 0 is off.",
        Number(0, 1, open_high=True),
    )
    seed: int | None = _declare(
        None,
        "Seed",
        "The same seed and settings repeat an answer.",
        WholeNumber(-(2**63), 2**64 - 1, optional=True),
    )
    gamma: int | Literal["auto"] = _declare(
        4,
        "Draft length (gamma)",
        "Tokens drafted in a round. 0: no drafts, plain decoding.",
        WholeNumber(0, MAX_GAMMA, word="auto"),
    )
    drafting: Drafting = _declare(
        "model",
        "Who drafts",
        "N-gram drafts what followed the same words earlier in the conversation. Both: n-gram where words "
        "repeat, the model elsewhere.",
        Choice(get_args(Drafting)),
    )
    verification: Verification = _declare(
        "rejection",
        "Verification",
        "How drafts are tested; both keep the target's distribution. With coupled, a seed gives the text "
        "that plain decoding gives with it.",
        Choice(get_args(Verification)),
    )
    stop: list[str] = _declare([], "Stop texts", "The answer ends before any of these.", Texts())
    typical_p: float = _declare(
        1.0,
        "Typical-p",
        "Only tokens about as surprising as expected, that together reach this share. 1 is off.",
        Number(0, 1, open_low=True),
    )
    repetition_penalty: float = _declare(
        1.0,
        "Repetition penalty",
        "Above 1, tokens of the conversation become less likely. 1 is off.",
        Number(0.01, 10),
    )
    frequency_penalty: float = _declare(
        0.0,
        "Frequency penalty",
        "Subtracted from a token's logit for each time that the answer has it. 0 is off.",
        Number(-2, 2),
    )
    presence_penalty: float = _declare(
        0.0,
        "Presence penalty",
        "Subtracted once from the logit of a token that the answer has. 0 is off.",
        Number(-2, 2),
    )
    logit_bias: dict[int, float] = _declare(
        {}, "Logit bias", "Added to the logits of tokens, by id.", TokenNumbers(-100, 100)
    )
    banned_tokens: list[int] = _declare([], "Banned tokens", "Ids that are never drawn.", TokenIds())
    alternatives: int = _declare(
        0,
        "Alternatives",
        "Each round shows this many of the likeliest tokens at every position, with p and q. 0 is off.",
        WholeNumber(0, MOST_ALTERNATIVES),
    )
    thinking: Thinking = _declare(
        "auto",
        "Thinking",
        "Whether the model thinks before it answers a message, where its chat template has a switch.",
        Choice(THINKING),
    )

    def __post_init__(self) -> None:
        for setting in SETTINGS.values():
            value = getattr(self, setting.name)
            setting.values.check(setting.name, value)
            if isinstance(setting.values, TokenNumbers):
                object.__setattr__(self, setting.name, setting.values.by_id(value))


def _setting(declared: Field[Any]) -> Setting:
    factory = declared.default_factory
    default = declared.default if factory is MISSING else factory()
    return Setting(name=declared.name, default=default, **declared.metadata)


SETTINGS: Mapping[str, Setting] = {declared.name: _setting(declared) for declared in fields(Settings)}
"""Every setting by name, in the order of the fields of Settings."""


def require_settings(value: object) -> Settings:
    """Return `value` if it is a Settings. Raises SettingsError otherwise."""
    if isinstance(value, Settings):
        return value
    example = "gamma=4"
    if isinstance(value, Mapping) and all(name in SETTINGS for name in value):
        example = ", ".join(f"{name}={_excerpt(given)}" for name, given in value.items())
    raise SettingsError(
        f"The settings must be a Settings, not {type(value).__name__}: pass Settings({example})."
    )
