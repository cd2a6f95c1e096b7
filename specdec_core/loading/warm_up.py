"""What a pair does before it answers: steps are timed, and the forwards that rounds are made of run once.

Without the latter, rounds with a new number of rows would pause on a runner that captures a graph of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

import torch

from ..drafting.length import LONGEST_AUTO, StepCosts
from ..pair import LoadedPair
from ..runners import Runner
from ..sampling import Sampler, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Drafting, Settings
from .step_times import prefill_s, step_times

_MEASURED_ROWS = (1, 2, 3, 5, 9)
_MEASURED_REPETITIONS = 15
_MEASURED_WITHIN_S = 1.0
_ANY_ID = 5


def measured_costs(pair: LoadedPair) -> dict[Drafting, StepCosts]:
    """What steps cost, for gamma="auto"."""
    context = min(64, pair.context_length - max(_MEASURED_ROWS))
    times = step_times(pair, context, _MEASURED_ROWS, _MEASURED_REPETITIONS, _MEASURED_WITHIN_S)
    # More rows never cost less; where it looks so, the machine was busy with something else.
    costs = accumulate((times.v(rows) for rows in sorted(times.target_s)), max)
    verify = dict(zip(sorted(times.target_s), costs, strict=True))
    catch_up = (0.0, 0.0)
    if pair.drafter is not None:
        few, many = (prefill_s(pair.drafter, tokens) / times.target_s[1] for tokens in (3, context))
        each = max(0.0, many - few) / max(1, context - 3)
        catch_up = (few, each)
    return {"model": StepCosts(times.c, verify, catch_up), "ngram": StepCosts(0.0, verify)}


def rehearse(pair: LoadedPair, own: Settings) -> None:
    """Captures what answers with the pair's own settings and greedy ones need, where its runner captures."""
    if not any(runner.captures for runner in (pair.target, pair.drafter) if runner is not None):
        return
    longest = LONGEST_AUTO if own.gamma == "auto" else own.gamma
    for settings in (own, replace(own, temperature=0.0)):
        sampler = sampler_for(settings, KeyedNoise(0, pair.target.device), pair.sampling)
        rehearse_rounds(pair.target, pair.drafter, sampler, range(longest + 1))


@torch.inference_mode()
def rehearse_rounds(target: Runner, drafter: Runner | None, sampler: Sampler, gammas: Iterable[int]) -> None:
    """Rounds of these gammas in caches of their own, with a first draft step of one row and of two."""
    cache = target.new_cache()
    draft_cache = drafter.new_cache() if drafter is not None else None
    for gamma in gammas:
        for missing in (1, 2) if drafter is not None and gamma else (1,):
            sampler.start_round([_ANY_ID], gamma)
            if drafter is None:
                sampler.take([_ANY_ID] * gamma)
            else:
                fed = drafter.ids([_ANY_ID] * missing)
                for step in range(gamma):
                    fed = drafter.forward(draft_cache, fed, last_rows=1, then=sampler.draft(step))
                draft_cache.rewind(0)
            sampler.read(target.forward(cache, sampler.rows, then=sampler.verify))
            cache.rewind(0)
