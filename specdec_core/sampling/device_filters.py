"""Filters on a device: the rule of `filters.filtered_logits` with settings in tensors and fixed shapes.

Sorting a vocabulary of 128,000 takes longer than all other sampling. So filters work on the best
`DEFAULT_WIDTH` ids of a row where they can. `Distributions.overflow` tells where a filter keeps more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor

from ..settings import MAX_GAMMA
from .filters import FILTERS, Bias, Cut, Penalty, SamplingParams

DEFAULT_WIDTH = 4096
"""Ids of a row that filters look at; the most that torch sorts in one kernel on a GPU."""

_ROWS = MAX_GAMMA + 1
_SMALLEST = 1e-45
"""The smallest float32 above 0."""
_SCALARS = [
    each.setting
    for each in FILTERS
    if isinstance(each, Penalty) or (isinstance(each, Cut) and not each.by_rank)
]
"""Settings with a number that is not computed by rank, each in a slot of RoundInputs."""
_HEAD = 5 + len(_SCALARS)


class FilterPath(Enum):
    """Ways to compute the filters. Each is captured in graphs of its own."""

    NONE = "temperature only"
    MIN_P = "min-p only"
    BEST = "the best ids"
    SORTED = "the whole vocabulary sorted"


@dataclass(frozen=True, slots=True)
class FilterPlan:
    """The operations of an answer's filters. Each plan is captured in graphs of its own, whatever the values.

    With `biased` a row is added to the logits, with `penalized` every penalty applies, also those that are
    off: one plan for each combination of settings would be many graphs. `path` computes the cuts by rank,
    then `cuts` follow. With `alternatives` an outcome has the likeliest tokens too.
    """

    path: FilterPath = FilterPath.NONE
    biased: bool = False
    penalized: bool = False
    cuts: tuple[Cut, ...] = ()
    alternatives: bool = False


def filter_plan(
    params: SamplingParams, vocab: int, width: int = DEFAULT_WIDTH, alternatives: bool = False
) -> FilterPlan:
    """Return the cheapest plan that computes these filters."""
    path = FilterPath.NONE if params.greedy else filter_path(params, vocab, width)
    cuts = tuple(each for each in params.cuts if not each.by_rank)
    biased = any(isinstance(each, Bias) for each in params.on_logits)
    return FilterPlan(path, biased, params.reads_history, cuts, alternatives)


def filter_path(params: SamplingParams, vocab: int, width: int = DEFAULT_WIDTH) -> FilterPath:
    """Return the cheapest way to compute the cuts by rank exactly, or nearly always exactly for `BEST`."""
    if "top_k" not in params.values and "top_p" not in params.values:
        return FilterPath.MIN_P if "min_p" in params.values else FilterPath.NONE
    # In a small vocabulary the sort costs no more than the selection of the best.
    return FilterPath.BEST if params.value("top_k") < width and vocab > 2 * width else FilterPath.SORTED


class RoundInputs:
    """Everything that a round reads, in one tensor of 8-byte slots, so that one copy uploads it.

    The ids are last, with the context's last id first among them: the drafts that follow it are not uploaded.
    """

    def __init__(self, slots: Tensor) -> None:
        floats, ints = slots.view(torch.float32), slots.view(torch.int64)
        self.inverse_temperature = floats[0:1]
        self.top_p = floats[2:3]
        """2 if the filter is off, so that rounding never makes the mass reach it."""
        self.min_p = floats[4:5]
        """At least the smallest float32 above 0, so that filtered entries fail the comparison too."""
        self.last_of_top_k = ints[3:4]
        """Place of the k-th best; of any entry if the filter is off."""
        self.has_top_k = slots.view(torch.bool)[32:33]
        self.values = {name: floats[2 * at : 2 * at + 1] for at, name in enumerate(_SCALARS, start=5)}
        """The value of each filter that is neither a row nor computed by rank, by setting."""
        self.uniforms = slots[_HEAD : _HEAD + 3 * _ROWS].view(3, _ROWS)
        self.draft_uniforms, self.accept_uniforms, self.residual_uniforms = self.uniforms
        self.ids = ints[_HEAD + 3 * _ROWS :]
        """The last id of the context, then the drafts [MAX_GAMMA + 1]."""
        self.uploaded = slots[: _HEAD + 1 + 3 * _ROWS]

    @classmethod
    def on(cls, device: torch.device | str) -> RoundInputs:
        """Return inputs of zeros on a device."""
        return cls(torch.zeros(_HEAD + 4 * _ROWS, dtype=torch.float64, device=device))

    def set_params(self, params: SamplingParams, vocab: int, width: int) -> None:
        """Set the settings of an answer, on the host."""
        top_k, top_p, min_p = map(params.value, ("top_k", "top_p", "min_p"))
        has_top_k = 0 < top_k < vocab
        self.inverse_temperature[0] = 0.0 if params.greedy else 1 / params.temperature
        self.top_p[0] = max(top_p, _SMALLEST) if top_p < 1 else 2.0
        self.min_p[0] = max(min_p, _SMALLEST)
        self.has_top_k[0] = has_top_k
        self.last_of_top_k[0] = (top_k if has_top_k else min(width, vocab)) - 1
        for name, value in self.values.items():
            value[0] = params.value(name)


@dataclass(frozen=True, slots=True)
class Distributions:
    """Unnormalized distributions over all ids, or over those in `ids` [rows, width].

    `scores` are the logits after the temperature, `weights` the exponentials, 0 where filtered; both are
    float32 [rows, vocab or width].
    """

    scores: Tensor
    weights: Tensor
    kept: Tensor | None = None
    """False for filtered entries of `scores`. None if none is, or if their scores are -inf."""
    ids: Tensor | None = None
    overflow: Tensor | None = None
    """Above 0 for each row [rows] of which ids outside of `ids` may be kept too."""

    @property
    def rows(self) -> int:
        """Number of distributions."""
        return self.weights.shape[0]

    @property
    def probs(self) -> Tensor:
        """Normalized weights. Computed anew each time."""
        return self.weights / self.weights.sum(-1, keepdim=True)

    def cut(self, cut: Cut, value: Tensor, filtered_score: Tensor) -> Distributions:
        """Return what a cut with this value leaves; `filtered_score` is -inf [1]."""
        scores = self._kept_scores(filtered_score)
        removed = cut.function(scores, value)
        return replace(
            self,
            scores=torch.where(removed, filtered_score, scores),
            weights=self.weights.masked_fill(removed, 0.0),
            kept=None,
        )

    def over_all_ids(self, probs: Tensor, vocab: int) -> Tensor:
        """Return `probs` [rows, vocab or width] over all ids [rows, vocab]."""
        if self.ids is None:
            return probs
        return probs.new_zeros(probs.shape[0], vocab).scatter_(-1, self.ids, probs)

    def _kept_scores(self, filtered_score: Tensor) -> Tensor:
        """`scores` with -inf for what is filtered."""
        return self.scores if self.kept is None else torch.where(self.kept, self.scores, filtered_score)

    @property
    def overflows(self) -> list[Tensor]:
        """`overflow` in a list, which is empty if there is none."""
        return [] if self.overflow is None else [self.overflow]

    def best(self, noise: Tensor, filtered_score: Tensor) -> Tensor:
        """Index [rows] of the best sum of score and noise [rows, vocab]; `filtered_score` is -inf [1]."""
        scores = self._kept_scores(filtered_score)
        return (scores + (noise if self.ids is None else noise.gather(-1, self.ids))).argmax(-1)

    def ids_at(self, index: Tensor) -> Tensor:
        """The id [rows] at an index of each row."""
        return index if self.ids is None else self.ids.gather(-1, index[:, None])[:, 0]

    def entries(self, probs: Tensor, ids: Tensor) -> Tensor:
        """The entry [ids] of `probs` for one id of each of the first rows, 0 for one that has none."""
        first = probs[: ids.shape[0]]
        if self.ids is None:
            return first.gather(-1, ids[:, None])[:, 0]
        return (first * (self.ids[: ids.shape[0]] == ids[:, None])).sum(-1)


def temperature_only(logits: Tensor, inputs: RoundInputs) -> Distributions:
    """Distributions of logits [rows, vocab] at a temperature."""
    scores = logits * inputs.inverse_temperature
    return Distributions(scores, _weights(scores))


def min_p_only(logits: Tensor, inputs: RoundInputs) -> Distributions:
    """Distributions of logits [rows, vocab] at a temperature, filtered by min-p alone, without a sort."""
    scores = logits * inputs.inverse_temperature
    weights = _weights(scores)
    kept = weights >= inputs.min_p
    return Distributions(scores, weights * kept, kept)


def best_of_drafter(logits: Tensor, inputs: RoundInputs, width: int) -> Distributions:
    """Distributions of the best `width` ids of logits [rows, vocab], filtered as if there were no others.

    That, and any order of equal ones, is right for a drafter: q is whatever a draft is drawn from.
    """
    best = logits.topk(width, dim=-1)
    return _filtered_best(best.values * inputs.inverse_temperature, best.indices, None, inputs)


def best_of_target(logits: Tensor, inputs: RoundInputs, width: int, scores: Tensor) -> Distributions:
    """Distributions of the best `width` ids of logits [rows, vocab], filtered by the rule of the whole row.

    A row is exact unless it overflows. `scores` [rows, vocab] receives the logits after the temperature,
    from which `by_sorting` can compute the rows again.
    """
    torch.mul(logits, inputs.inverse_temperature, out=scores)
    # Half-precision logits take half of topk's passes. Scaled in float32, different ones stay different,
    # which those of float32 may not.
    ranked = scores if logits.dtype == torch.float32 else logits
    best = ranked.topk(width, dim=-1, sorted=False)
    # topk promises no order of equal ones; top-p keeps those with lower ids. int32 sorts in half the time.
    ids, order = best.indices.int().sort(dim=-1)
    order = best.values.gather(-1, order).sort(dim=-1, descending=True, stable=True).indices
    ids = ids.gather(-1, order).long()
    best_scores = scores.gather(-1, ids)
    everything = (scores - best_scores[:, :1]).exp_().sum(-1, keepdim=True)
    return _filtered_best(best_scores, ids, everything, inputs)


def by_sorting(scores: Tensor, inputs: RoundInputs) -> Distributions:
    """Distributions of scores [rows, vocab], float32 logits after the temperature, by a sort of all."""
    ordered, order = scores.sort(dim=-1, descending=True, stable=True)
    threshold = ordered.index_select(-1, inputs.last_of_top_k).masked_fill(~inputs.has_top_k, -torch.inf)
    probs = ordered.masked_fill(ordered < threshold, -torch.inf).softmax(-1)
    drop = probs.cumsum(-1) - probs >= inputs.top_p
    drop = (scores < threshold) | torch.zeros_like(drop).scatter(-1, order, drop)
    scores = scores.masked_fill(drop, -torch.inf)
    weights = _weights(scores)
    return Distributions(
        scores.masked_fill(weights < inputs.min_p, -torch.inf), weights * (weights >= inputs.min_p)
    )


def _filtered_best(
    scores: Tensor, ids: Tensor, everything: Tensor | None, inputs: RoundInputs
) -> Distributions:
    """Filter the best scores [rows, width], which are in order; `ids` are theirs.

    `everything` [rows, 1] is the weight of the whole row; that of the best if None.
    """
    weights = (scores - scores[:, :1]).exp_()
    weights = weights * (scores >= scores.index_select(-1, inputs.last_of_top_k))
    mass = weights.cumsum(-1)
    total = mass[:, -1:]
    if everything is not None:
        total = torch.where(inputs.has_top_k, total, everything)
    kept = (mass - weights < total * inputs.top_p) & (weights >= inputs.min_p)
    filtered = weights * kept
    if everything is None:
        return Distributions(scores, filtered, kept, ids)
    # Ids outside weigh as much as the last entry or less: one may be kept if an entry of that weight is. If
    # top-k keeps the last entry, its equals outside are missing in the total, so that top-p is undecided.
    reached = (weights <= weights[:, -1:]) & (kept | inputs.has_top_k)
    return Distributions(scores, filtered, kept, ids, (weights * reached).amax(-1))


def _weights(scores: Tensor) -> Tensor:
    """exp(score − best score). A GPU computes a softmax of a row in one block, these in many."""
    return (scores - scores.amax(-1, keepdim=True)).exp_()
