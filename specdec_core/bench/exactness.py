"""Comparison of speculative output with the baseline's, token for token, over many prompts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..engine import Engine
from ..pair import token_margin
from ..peers import peer_ids
from ..settings import Settings
from ..text.prompting import Prompt
from ..trace import first_difference
from .prompts import story_prompt

GAMMAS = (1, 3, 4, 8)
_WITH_GREEDY: dict[str, dict[str, Any]] = {
    "repetition_penalty 1.3": {"repetition_penalty": 1.3},
    "frequency_penalty 0.6": {"frequency_penalty": 0.6},
    "presence_penalty 0.9": {"presence_penalty": 0.9},
    "logit_bias, banned_tokens": {
        "logit_bias": dict.fromkeys(range(20, 60), 1.5),
        "banned_tokens": list(range(60, 90)),
    },
}
"""Settings beside which greedy answers are compared, with a shorter list of gammas."""
_WITH_COUPLED: dict[str, dict[str, Any]] = {
    "typical_p 0.6": {"typical_p": 0.6},
    "repetition_penalty 1.2, top_p 0.9": {"repetition_penalty": 1.2, "top_p": 0.9},
}
"""The same for coupled answers."""
_FEW_GAMMAS = (4,)
_PLAIN = ("greedy", "coupled")
EXCUSED_MARGIN = 1e-3
"""Below this, in float32, one-row and several-row kernels may order the two best logits differently."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first token at which an answer differs from the baseline's.

    `margin` is the difference between the two best scores there: logits, or log probability plus noise.
    """

    prompt: int
    rule: str
    lane: str
    token: int
    margin: float


@dataclass(frozen=True, slots=True)
class RuleCount:
    """Answers under one rule that were compared with the baseline's, those of transformers' generate among
    them, and those that diverge.
    """

    rule: str
    compared: int
    of_transformers: int
    divergent: int


@dataclass(frozen=True, slots=True)
class ExactnessReport:
    """Answers compared and their divergences; `unexcused` have a margin of EXCUSED_MARGIN or more."""

    prompts: int
    max_new_tokens: int
    compared: int
    divergences: list[Divergence]
    unexcused: int
    rules: list[RuleCount]


def exactness(engine: Engine, prompts: int, max_new_tokens: int = 150) -> ExactnessReport:
    """Compare greedy and coupled answers (temperature 1, same seed) with the baseline's, without filters and
    with some.

    Greedy ones for every gamma of GAMMAS and from transformers' own generate where its modules have their
    weights, coupled ones for every gamma; those with filters for gamma 4 alone.
    """
    keeps_modules = all(runner.keeps_modules for runner in engine.pair.runners)
    compared: Counter[str] = Counter()
    of_transformers: Counter[str] = Counter()
    divergences: list[Divergence] = []
    for n in range(prompts):
        prompt = story_prompt(engine, n)
        for rule, settings in _rules(max_new_tokens, seed=n).items():
            baseline = engine.generate(prompt, settings)
            answers = _speculative(engine, prompt, settings, GAMMAS if rule in _PLAIN else _FEW_GAMMAS)
            if settings.temperature == 0 and keeps_modules:
                of_transformers[rule] += 1
                answers["transformers generate"] = peer_ids(
                    engine.pair, baseline.prompt_token_ids, settings, assisted=False
                )
            compared[rule] += len(answers)
            for lane, ids in answers.items():
                at = first_difference(ids, baseline.token_ids)
                if at is not None:
                    before = baseline.prompt_token_ids + baseline.token_ids[:at]
                    prompt_length = len(baseline.prompt_token_ids)
                    margin = token_margin(engine.pair, before, prompt_length, settings)
                    divergences.append(Divergence(n, rule, lane, at, margin))
    unexcused = sum(divergence.margin >= EXCUSED_MARGIN for divergence in divergences)
    diverged = Counter(divergence.rule for divergence in divergences)
    rules = [RuleCount(rule, compared[rule], of_transformers[rule], diverged[rule]) for rule in compared]
    return ExactnessReport(prompts, max_new_tokens, compared.total(), divergences, unexcused, rules)


def exactness_lines(report: ExactnessReport) -> list[str]:
    """Return the report as lines of text: totals, a line for each rule, then one for each divergence."""
    width = max(len(count.rule) for count in report.rules)
    return [
        f"{report.compared} answers of up to {report.max_new_tokens} tokens to {report.prompts} "
        f"prompts compared with the baseline's: {len(report.divergences)} diverge, "
        f"{report.unexcused} of them with a margin of {EXCUSED_MARGIN:g} or more",
        *(
            f"  {count.rule:<{width}}  {count.compared:5d} compared, {count.of_transformers:4d} of them "
            f"transformers', {count.divergent:3d} diverge"
            for count in report.rules
        ),
        *(
            f"  prompt {divergence.prompt}, {divergence.rule}, {divergence.lane}: from token "
            f"{divergence.token}, margin {divergence.margin:.1e}"
            for divergence in report.divergences
        ),
    ]


def _rules(max_new_tokens: int, seed: int) -> dict[str, Settings]:
    """The baseline's settings under which answers are deterministic, by name of the rule."""
    greedy = Settings(max_new_tokens=max_new_tokens, temperature=0, gamma=0, seed=seed)
    coupled = dataclasses.replace(greedy, temperature=1, verification="coupled")
    return {
        "greedy": greedy,
        "coupled": coupled,
        **{
            f"greedy, {name}": dataclasses.replace(greedy, **changed)
            for name, changed in _WITH_GREEDY.items()
        },
        **{
            f"coupled, {name}": dataclasses.replace(coupled, **changed)
            for name, changed in _WITH_COUPLED.items()
        },
    }


def _speculative(
    engine: Engine, prompt: Prompt, settings: Settings, gammas: Sequence[int]
) -> dict[str, list[int]]:
    if engine.pair.drafter is None:
        return {}
    return {
        f"gamma {gamma}": engine.generate(prompt, dataclasses.replace(settings, gamma=gamma)).token_ids
        for gamma in gammas
    }
