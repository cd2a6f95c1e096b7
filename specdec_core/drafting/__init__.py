"""Who proposes: a drafter gets the context and gamma, and gives its drafts to the sampler."""

from .base import Drafter
from .model import ModelDrafter
from .ngram import NgramDrafter

__all__ = ["Drafter", "ModelDrafter", "NgramDrafter"]
