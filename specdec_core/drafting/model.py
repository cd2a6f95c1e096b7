"""Drafting with a model: the small sibling runs gamma steps ahead of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..runners import RewindableCache, Runner, Then
from ..sampling import Sampler
from ..trace import DraftSource, GammaReason
from .base import Offer


class ModelDrafter:
    """Drafts with a model. A draft begins with the tokens that its cache lacks: one, or two after a round in
    which every draft was accepted. More are prefilled before: the prompt, after the first token, which never
    waits for it, and what rounds without drafts of this model emitted.
    """

    source: DraftSource = "model"
    obstacle: GammaReason = "drafter_context"

    def __init__(self, runner: Runner, cache: RewindableCache) -> None:
        self.runner = runner
        self.cache = cache

    def offer(self, context: Sequence[int]) -> Offer | None:
        """See Drafter.offer. The last draft is not fed, so it may lie one past the drafter's own context."""
        room = self.runner.context_length - len(context) + 1
        return Offer("model", room, len(context) - self.cache.length) if room > 0 else None

    def catch_up(self, context: Sequence[int], stopped: Callable[[], bool]) -> bool:
        """Prefill all but the last token if more than a round's two are missing."""
        missing = context[self.cache.length : -1]
        return len(missing) < 2 or self.runner.prefill(self.cache, missing, stopped) is not None

    def propose(self, context: Sequence[int], gamma: int, sampler: Sampler) -> None:
        """See Drafter.propose."""
        # The sampler has the last of the context, before there are drafts, in a tensor that runners know.
        one = len(context) - self.cache.length == 1
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
