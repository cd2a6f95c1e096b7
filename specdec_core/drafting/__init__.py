"""Who proposes: a drafter gets the context and gamma, and answers with draft ids and q."""

from .base import Drafter
from .model import ModelDrafter
from .ngram import NgramDrafter

__all__ = ["Drafter", "ModelDrafter", "NgramDrafter"]
