"""Drafting with a model: the small sibling runs gamma steps ahead of the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..runners import RewindableCache, Runner
from ..sampling import Sampler


class ModelDrafter:
    """Feeds what the cache lacks of the context: one token, or two after a round in which every draft stood.
    The prompt is taken in before the first round, so that the first token never waits for it.
    """

    def __init__(self, runner: Runner, cache: RewindableCache) -> None:
        self.runner = runner
        self.cache = cache

    def missing(self, context: Sequence[int]) -> int:
        return len(context) - self.cache.length

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Prefills all but the last token where more than a round's two are missing."""
        missing = context[self.cache.length : -1]
        return len(missing) < 2 or self.runner.prefill(self.cache, missing, stopped) is not None

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        fed = self.runner.ids(context[self.cache.length :])
        for step in range(gamma):
            fed = self.runner.forward(self.cache, fed, last_rows=1, then=sampler.draft(step))

    def rewind(self, length: int) -> None:
        self.cache.rewind(length)
