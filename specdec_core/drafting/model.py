"""Drafting with a model: the small sibling runs gamma steps ahead of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..runners import RewindableCache, Runner, Then
from ..sampling import Sampler


class ModelDrafter:
    """Drafts with a model. A draft begins with the tokens that its cache lacks: one, or two after a round in
    which every draft was accepted. The prompt is prefilled after the first token, which never waits for it.
    """

    def __init__(self, runner: Runner, cache: RewindableCache) -> None:
        self.runner = runner
        self.cache = cache

    def room(self, length: int) -> int:
        """See Drafter.room. The last draft is not fed, so it may lie one past the drafter's own context."""
        return self.runner.context_length - length + 1

    def missing(self, context: Sequence[int]) -> int:
        """See Drafter.missing."""
        return len(context) - self.cache.length

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Prefill all but the last token if more than a round's two are missing."""
        missing = context[self.cache.length : -1]
        return len(missing) < 2 or self.runner.prefill(self.cache, missing, stopped) is not None

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """See Drafter.propose."""
        # The sampler has the last of the context, before there are drafts, in a tensor that runners know.
        one = self.missing(context) == 1
        ids = sampler.rows if one else self.runner.ids(context[self.cache.length :])
        self.runner.chain(self.cache, ids, _drawing(gamma, sampler))

    def rewind(self, length: int) -> None:
        """See Drafter.rewind."""
        self.cache.rewind(length)


def _drawing(gamma: int, sampler: Sampler) -> Iterator[Then]:
    """The functions that draw at most gamma drafts, up to one that ends the answer."""
    for step in range(gamma):
        yield sampler.draft(step)
        if sampler.complete:
            return
