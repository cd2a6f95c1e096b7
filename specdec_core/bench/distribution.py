"""Chi-squared test of sampled answers: their first tokens against the target's own probabilities.

The probabilities come from forwards of the target alone and a softmax, none of the sampler's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from ..engine import Engine
from ..errors import SettingsError
from ..pair import LoadedPair
from ..settings import Settings, Verification
from ..trace import TESTED_KINDS
from .prompts import topic_request

_TOKENS = 3
"""Tokens of an answer that are counted together: round 0 gives the first, verified rounds the others."""
_GAMMA = 3
_FEWEST = 5.0
"""Least expected count of a cell; rarer beginnings are counted together."""
_RULES: tuple[Verification, ...] = ("rejection", "coupled")
LOWEST_P = 1e-3
"""A p-value below it says that the answers do not follow the target."""

Beginning = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RuleFit:
    """The fit under one rule: `cells` that were compared, and the share of tested drafts that stood."""

    rule: Verification
    cells: int
    chi_squared: float
    p_value: float
    acceptance: float | None


@dataclass(frozen=True, slots=True)
class DistributionReport:
    """Answers a rule, at temperature 1 without filters; `follows` is True if no p-value is below LOWEST_P."""

    answers: int
    tokens: int
    rules: list[RuleFit]
    follows: bool


def distribution(engine: Engine, answers: int) -> DistributionReport:
    """Draw as many answers to one prompt under each rule, and compare how often each beginning came.

    Raises SettingsError for a pair without a drafter, and for too few answers to compare.
    """
    engine.pair.require_drafter()
    fits = [_fit(engine, rule, answers) for rule in _RULES]
    return DistributionReport(answers, _TOKENS, fits, all(fit.p_value >= LOWEST_P for fit in fits))


def distribution_lines(report: DistributionReport) -> list[str]:
    """Return the report as lines of text."""
    verdict = "follow" if report.follows else "do NOT follow"
    lines = [
        f"the first {report.tokens} tokens of {report.answers:,} answers a rule {verdict} the target's "
        f"probabilities (p-value of {LOWEST_P:g} or more)"
    ]
    for fit in report.rules:
        acceptance = "no draft tested" if fit.acceptance is None else f"acceptance {fit.acceptance:.2f}"
        lines.append(
            f"  {fit.rule:<9}  chi-squared {fit.chi_squared:.1f} over {fit.cells} cells, "
            f"p = {fit.p_value:.3f}, {acceptance}"
        )
    return lines


def _fit(engine: Engine, rule: Verification, answers: int) -> RuleFit:
    settings = Settings(
        temperature=1.0,
        gamma=_GAMMA,
        verification=rule,
        drafting=engine.default_settings.drafting,
        max_new_tokens=_TOKENS + _GAMMA,  # so that no draft of the counted tokens is cut off by the limit
    )
    counts: Counter[Beginning] = Counter()
    accepted = tested = 0
    session = engine.session()
    prompt = topic_request(0)
    for seed in range(answers):
        ids: list[int] = []
        with closing(engine.stream(prompt, replace(settings, seed=seed), session)) as rounds:
            for rnd in rounds:
                ids += [token.id for token in rnd.emitted]
                accepted += sum(token.kind == "accepted" for token in rnd.tokens)
                tested += sum(token.kind in TESTED_KINDS for token in rnd.tokens)
                if len(ids) >= _TOKENS:
                    break
        counts[tuple(ids[:_TOKENS])] += 1
    expected = {
        beginning: answers * probability
        for beginning, probability in _likely_beginnings(engine.pair, session.prompt_ids, _FEWEST / answers)
    }
    cells, chi_squared = _chi_squared(counts, expected, answers)
    if cells < 2:
        raise SettingsError(
            f"--distribution: of {answers:,} answers no beginning is expected {_FEWEST:g} times. Draw more."
        )
    halves = torch.tensor([cells - 1, chi_squared], dtype=torch.float64) / 2
    p_value = float(torch.special.gammaincc(*halves))
    return RuleFit(rule, cells, chi_squared, p_value, accepted / tested if tested else None)


def _chi_squared(
    counts: Counter[Beginning], expected: dict[Beginning, float], answers: int
) -> tuple[int, float]:
    """The number of cells and the statistic; the last cell has all beginnings that are not expected alone."""
    observed = [counts[beginning] for beginning in expected]
    wanted = list(expected.values())
    observed.append(answers - sum(observed))
    wanted.append(answers - sum(wanted))
    if wanted[-1] < _FEWEST and len(wanted) > 1:
        observed[-2:] = [sum(observed[-2:])]
        wanted[-2:] = [sum(wanted[-2:])]
    return len(wanted), sum((seen - want) ** 2 / want for seen, want in zip(observed, wanted, strict=True))


@torch.inference_mode()
def _likely_beginnings(
    pair: LoadedPair, prompt_ids: Sequence[int], lowest: float
) -> list[tuple[Beginning, float]]:
    """The beginnings of _TOKENS tokens, without an end, of `lowest` probability or more, with theirs."""
    runner = pair.target
    cache = runner.new_cache()
    runner.prefill(cache, prompt_ids[:-1])
    ends = sorted(pair.eos_ids)
    found: list[tuple[Beginning, float]] = [((), 1.0)]
    for _ in range(_TOKENS):
        shorter, found = found, []
        for beginning, probability in shorter:
            logits = runner.forward(cache, runner.ids([prompt_ids[-1], *beginning]), last_rows=1)
            row = logits[-1].double().softmax(-1) * probability
            row[ends] = 0.0
            cache.rewind(len(prompt_ids) - 1)
            likely = (row >= lowest).nonzero().flatten().tolist()
            found += [((*beginning, token), float(row[token])) for token in likely]
    return found
