"""Drafters, which propose tokens to the sampler, and policies for the draft length."""

from .base import Drafter
from .model import ModelDrafter
from .ngram import NgramDrafter

__all__ = ["Drafter", "ModelDrafter", "NgramDrafter"]
