"""Settings: what one answer is asked for. Knows nothing of models; values are checked when it is made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from .errors import SettingsError

Drafting = Literal["model", "ngram"]
Verification = Literal["rejection", "coupled"]
VocabPadding = Literal["refuse", "trim"]
"""Where only the padding of the logits' width differs: refuse, or cut both to the tokenizer's ids."""

MAX_GAMMA = 16
"""The longest draft that is verified at once; beyond it even a perfect drafter gains next to nothing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One answer's settings. Raises SettingsError, naming the field, when a value is out of range.

    temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 switch the filter off; seed None draws a fresh
    seed; gamma 0 is the baseline, "auto" lets measured times and acceptance decide.
    """

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    gamma: int | Literal["auto"] = 4
    drafting: Drafting = "model"
    verification: Verification = "rejection"
    stop: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._require_int("max_new_tokens", 1, 1_000_000)
        self._require_number("temperature", 0.0, 100.0)
        self._require_int("top_k", 0, 2**31)
        self._require_number("top_p", 0.0, 1.0, open_low=True)
        self._require_number("min_p", 0.0, 1.0, open_high=True)
        if self.seed is not None:
            self._require_int("seed", -(2**63), 2**64 - 1)
        if self.gamma != "auto":
            self._require_int("gamma", 0, MAX_GAMMA, also=' or "auto"')
        self._require_choice("drafting", get_args(Drafting))
        self._require_choice("verification", get_args(Verification))
        if not isinstance(self.stop, list | tuple) or not all(isinstance(s, str) and s for s in self.stop):
            raise SettingsError(f"stop must be a list of non-empty strings, not {self.stop!r}.")

    def _require_int(self, name: str, low: int, high: int, also: str = "") -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise SettingsError(f"{name} must be a whole number from {low} to {high}{also}, not {value!r}.")

    def _require_number(
        self, name: str, low: float, high: float, *, open_low: bool = False, open_high: bool = False
    ) -> None:
        value = getattr(self, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        below = is_number and (value <= low if open_low else value < low)
        above = is_number and (value >= high if open_high else value > high)
        if not is_number or below or above:
            lower = f"above {low:g}" if open_low else f"at least {low:g}"
            upper = f"below {high:g}" if open_high else f"at most {high:g}"
            raise SettingsError(f"{name} must be {lower} and {upper}, not {value!r}.")

    def _require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise SettingsError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}.")
