"""Drafters, which propose tokens to the sampler, and policies for the draft length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..settings import Drafting
from ..trace import DraftSource
from .base import Drafter, Offer
from .model import ModelDrafter
from .ngram import NgramDrafter

MODEL_FREE: Mapping[DraftSource, Callable[[], Drafter]] = {"ngram": NgramDrafter}
"""Drafters without a model; a drafter lives for one answer."""
SOURCES: Mapping[Drafting, Sequence[DraftSource]] = {
    "model": ("model",),
    "ngram": ("ngram",),
    "both": ("ngram", "model"),
}
"""The drafters of an answer by the setting's value, the preferred one first."""

__all__ = ["MODEL_FREE", "SOURCES", "Drafter", "ModelDrafter", "NgramDrafter", "Offer"]
