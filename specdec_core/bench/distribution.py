"""Chi-squared test of sampled answers: their first tokens against the target's own probabilities.

The probabilities come from forwards of the target alone and a softmax, none of the sampler's code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from ..engine import Engine
from ..errors import SettingsError
from ..pair import LoadedPair
from ..settings import Settings, Verification
from ..trace import TESTED_KINDS
from .prompts import story_prompt

_TOKENS = 3
"""Tokens of an answer that are counted together: round 0 gives the first, verified rounds the others."""
_GAMMA = 3
_FEWEST = 5.0
"""Least expected count of a cell; rarer beginnings are counted together."""
_RULES: tuple[Verification, ...] = ("rejection", "coupled")
LOWEST_P = 1e-3
"""A p-value below it says that the answers do not follow the target."""

_OTHER = -1

Beginning = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RuleFit:
    """The fit under one rule: `cells` that were compared, the `share` of answers expected in those of one
    beginning, and the acceptance rate of the drafts.
    """

    rule: Verification
    cells: int
    share: float
    chi_squared: float
    p_value: float
    acceptance: float | None


@dataclass(frozen=True, slots=True)
class DistributionReport:
    """So many answers per rule, at temperature 1 without filters; `follows` is True if no p-value is below
    LOWEST_P.
    """

    answers: int
    tokens: int
    rules: list[RuleFit]
    follows: bool


def distribution(engine: Engine, answers: int) -> DistributionReport:
    """Draw as many answers to one prompt under each rule, and compare how often each beginning occurs.

    Raises SettingsError for a target alone, and where there is nothing to compare: with too few answers, or
    if nearly all of them begin alike.
    """
    if engine.pair.drafter is None:
        raise SettingsError("--distribution is for pairs: a target alone has no drafts to verify.")
    fits = [_fit(engine, rule, answers) for rule in _RULES]
    return DistributionReport(answers, _TOKENS, fits, all(fit.p_value >= LOWEST_P for fit in fits))


def distribution_lines(report: DistributionReport) -> list[str]:
    """Return the report as lines of text."""
    verdict = "follow" if report.follows else "do NOT follow"
    lines = [
        f"the first {report.tokens} tokens of {report.answers:,} answers per rule {verdict} the target's "
        f"probabilities (p-value of {LOWEST_P:g} or more)"
    ]
    for fit in report.rules:
        acceptance = "no draft tested" if fit.acceptance is None else f"acceptance {fit.acceptance:.2f}"
        lines.append(
            f"  {fit.rule:<9}  chi-squared {fit.chi_squared:.1f} over {fit.cells} cells with "
            f"{100 * fit.share:.0f} % of the answers, p = {fit.p_value:.3f}, {acceptance}"
        )
    return lines


def _fit(engine: Engine, rule: Verification, answers: int) -> RuleFit:
    drawn = _drawn(engine, rule, answers)
    shares = _cells(engine.pair, drawn.prompt_ids, _FEWEST / answers)
    counts: Counter[Beginning] = Counter()
    for beginning, count in drawn.begun.items():
        counts[_cell_of(beginning, shares)] += count
    observed, wanted = _pooled(counts, {cell: answers * share for cell, share in shares.items()})
    if len(wanted) < 2:
        raise SettingsError(
            f"--distribution: {answers:,} answers of this pair begin too much alike, or in too many ways, to "
            "be compared. Draw more."
        )
    chi_squared = sum((seen - want) ** 2 / want for seen, want in zip(observed, wanted, strict=True))
    halves = torch.tensor([len(wanted) - 1, chi_squared], dtype=torch.float64) / 2
    return RuleFit(
        rule,
        cells=len(wanted),
        share=sum(share for share in shares.values() if answers * share >= _FEWEST),
        chi_squared=chi_squared,
        p_value=float(torch.special.gammaincc(*halves)),
        acceptance=drawn.accepted / drawn.tested if drawn.tested else None,
    )


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Answers to the prompt with these ids by their beginnings, and their tested and accepted drafts."""

    prompt_ids: list[int]
    begun: Counter[Beginning]
    tested: int
    accepted: int


def _drawn(engine: Engine, rule: Verification, answers: int) -> _Drawn:
    settings = Settings(
        temperature=1.0,
        gamma=_GAMMA,
        verification=rule,
        drafting=engine.default_settings.drafting,
        max_new_tokens=_TOKENS + _GAMMA,  # so that no draft of the counted tokens is cut off by the limit
    )
    begun: Counter[Beginning] = Counter()
    kinds: Counter[str] = Counter()
    session = engine.session()
    prompt = story_prompt(engine, 0)
    for seed in range(answers):
        ids: list[int] = []
        with closing(engine.stream(prompt, replace(settings, seed=seed), session)) as rounds:
            for rnd in rounds:
                ids += [token.id for token in rnd.emitted]
                kinds.update(token.kind for token in rnd.tokens)
                if len(ids) >= _TOKENS:
                    break
        begun[tuple(ids[:_TOKENS])] += 1
    return _Drawn(session.prompt_ids, begun, sum(kinds[kind] for kind in TESTED_KINDS), kinds["accepted"])


def _pooled(counts: Counter[Beginning], expected: dict[Beginning, float]) -> tuple[list[int], list[float]]:
    """Observed and expected counts by cell. Cells with too few expected are one, or part of the smallest."""
    cells = sorted((want, counts[cell]) for cell, want in expected.items())
    wanted, observed = [0.0], [0]
    for want, seen in cells:
        if wanted[-1] < _FEWEST:
            wanted[-1] += want
            observed[-1] += seen
        else:
            wanted.append(want)
            observed.append(seen)
    return observed, wanted


@torch.inference_mode()
def _cells(pair: LoadedPair, prompt_ids: Sequence[int], lowest: float) -> dict[Beginning, float]:
    """The beginnings of _TOKENS tokens of `lowest` probability or more, and theirs. All others of a likely
    shorter beginning, ends of answers among them, are in one cell, which has _OTHER after it.
    """
    runner = pair.target
    cache = runner.new_cache()
    runner.prefill(cache, prompt_ids[:-1])
    ends = [token for token in pair.eos_ids if token < runner.vocab_size]
    cells: dict[Beginning, float] = {}
    found: dict[Beginning, float] = {(): 1.0}
    for _ in range(_TOKENS):
        shorter, found = found, {}
        for beginning, probability in shorter.items():
            logits = runner.forward(cache, runner.ids([prompt_ids[-1], *beginning]), last_rows=1)
            row = logits[-1].double().softmax(-1) * probability
            cache.rewind(len(prompt_ids) - 1)
            row[ends] = 0.0
            likely = {token: float(row[token]) for token in (row >= lowest).nonzero().flatten().tolist()}
            cells[*beginning, _OTHER] = probability - sum(likely.values())
            found |= {(*beginning, token): share for token, share in likely.items()}
    return cells | found


def _cell_of(ids: Beginning, cells: Mapping[Beginning, float]) -> Beginning:
    """The cell of an answer with these first tokens."""
    if ids in cells:
        return ids
    return next(
        (*ids[:count], _OTHER) for count in range(len(ids), -1, -1) if (*ids[:count], _OTHER) in cells
    )
