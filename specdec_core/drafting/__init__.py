"""Drafters, which propose tokens to the sampler, and policies for the draft length."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..settings import Drafting
from .base import Drafter
from .model import ModelDrafter
from .ngram import NgramDrafter

MODEL_FREE: Mapping[Drafting, Callable[[], Drafter]] = {"ngram": NgramDrafter}
"""Drafters without a model, by the setting's value; a drafter lives for one answer."""

__all__ = ["MODEL_FREE", "Drafter", "ModelDrafter", "NgramDrafter"]
