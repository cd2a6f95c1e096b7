"""Warm-up of a loaded pair: measurement of its step costs, and one run of every forward that rounds use.

Without the latter, the first round with a new number of rows would pause on a runner that captures graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import torch

from ..drafting import MODEL_FREE, ModelDrafter
from ..drafting.length import LONGEST_AUTO, StepCosts
from ..pair import LoadedPair
from ..runners import Runner
from ..sampling import Sampler, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Settings
from ..trace import DraftSource
from .step_times import ANY_ID, prefill_s, step_times

_MEASURED_ROWS = (1, 2, 3, 5, 9)
"""Rows of a verification that a CPU is measured at; the cost in between lies on a line."""
_MEASURED_REPETITIONS = 15
_MEASURED_WITHIN_S = 1.0


def measured_costs(pair: LoadedPair) -> dict[DraftSource, StepCosts]:
    """Measure the step costs that gamma="auto" needs."""
    rows = _measured_rows(pair.target)
    context = min(64, pair.shared_context_length - max(rows))
    times = step_times(pair, context, rows, _MEASURED_REPETITIONS, _MEASURED_WITHIN_S)
    # More rows never cost less; a measurement that says so was disturbed by another process.
    rising = accumulate((times.v(rows) for rows in sorted(times.target_s)), max)
    verify = dict(zip(sorted(times.target_s), rising, strict=True))
    catch_up = (0.0, 0.0)
    if pair.drafter is not None:
        few, many = (prefill_s(pair.drafter, tokens) / times.target_s[1] for tokens in (3, context))
        each = max(0.0, many - few) / max(1, context - 3)
        catch_up = (few, each)
    costs: dict[DraftSource, StepCosts] = {name: StepCosts(0.0, verify) for name in MODEL_FREE}
    costs["model"] = StepCosts(times.c, verify, catch_up)
    return costs


def _measured_rows(target: Runner) -> Sequence[int]:
    """All numbers of rows on a GPU, where quantized products change their kernel at one that depends on their
    shape and on the card.
    """
    if not target.rewinds:
        return (1,)
    return _MEASURED_ROWS if target.device.type == "cpu" else range(1, LONGEST_AUTO + 2)


def rehearse(pair: LoadedPair, own: Settings) -> None:
    """Capture the graphs for answers with the pair's own settings and with greedy ones. Those that only the
    measurements used are dropped.

    Nothing happens if no runner of the pair captures graphs.
    """
    if not any(runner.captures for runner in pair.runners):
        return
    for runner in pair.runners:
        runner.drop_bare_graphs()
    longest = LONGEST_AUTO if own.gamma == "auto" else own.gamma
    for settings in (own, replace(own, temperature=0.0)):
        sampler = sampler_for(settings, KeyedNoise(0, pair.target.device), pair.sampling)
        rehearse_rounds(pair.target, pair.drafter, sampler, range(longest + 1))


@torch.inference_mode()
def rehearse_rounds(target: Runner, drafter: Runner | None, sampler: Sampler, gammas: Iterable[int]) -> None:
    """Run a round of each gamma, in caches that are dropped afterwards.

    With a drafter, each also runs with a first draft step over two rows, as after a fully accepted round.
    """
    cache = target.new_cache()
    drafts = None if drafter is None else ModelDrafter(drafter, drafter.new_cache())
    for gamma in gammas:
        for missing in (1, 2) if drafts is not None and gamma else (1,):
            sampler.start_round([ANY_ID], gamma)
            if drafts is None:
                sampler.take([ANY_ID] * gamma)
            else:
                drafts.propose([ANY_ID] * missing, gamma, sampler)
                drafts.rewind(0)
            sampler.read(target.forward(cache, sampler.rows, then=sampler.verify))
            cache.rewind(0)
