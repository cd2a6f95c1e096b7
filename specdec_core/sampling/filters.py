"""Conversion of logits to the distribution that a token is drawn from: biases, penalties, temperature, cuts.

Each filter is declared once, in FILTERS. The samplers and transformers' lanes take theirs from there.
Knows nothing of models, rounds or randomness.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..settings import SETTINGS, Settings
from .history import History

_NUCLEUS_FIRST = 256
"""Tokens that are sorted first; a nucleus is rarely larger."""
_GREEDY_BELOW = 1e-6
"""At a lower temperature, float32 softmax gives the best logit a probability of 1 anyway."""


@dataclass(frozen=True, eq=False)
class Bias:
    """A row that is added to all logits. `setting` names its setting, whose default switches it off.

    `row` makes a float32 tensor [vocab] of the setting's value and vocab.
    """

    setting: str
    row: Callable[[Any, int], Tensor]


@dataclass(frozen=True, eq=False)
class Penalty:
    """A change of logits that depends on the tokens before. `setting` names its setting, whose default
    switches it off.

    `function` maps float32 logits, the value and the rows' history to other logits, [rows, vocab] or for the
    history's own tokens alone: it must not change those of a token that does not come before. The value is
    the setting's, or a float32 tensor [1] on a device, where shapes must be fixed and nothing may
    synchronize; the default must change nothing. `transformers` is the name of generate's counterpart, if it
    has one.
    """

    setting: str
    function: Callable[[Tensor, Any, History], Tensor]
    transformers: str | None = None


@dataclass(frozen=True, eq=False)
class Cut:
    """A removal of tokens after the temperature. `setting` names its setting, whose default switches it off.

    `function` maps scores, float32 [rows, entries], and the value to a mask of what is removed; what earlier
    cuts removed has -inf. The entries are all ids, or those that earlier cuts kept and some others. The value
    is as for a Penalty. `by_rank` ones are computed together on a device, in device_filters. `transformers`
    is the name of generate's counterpart.
    """

    setting: str
    function: Callable[[Tensor, Any], Tensor]
    transformers: str | None = None
    by_rank: bool = False


Filter = Bias | Penalty | Cut


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """The settings that shape a distribution. `SamplingParams.of` makes one.

    `values` are those of the filters that are not off, by setting. `on_logits` are the filters before the
    temperature among them, which greedy answers have too; `cuts` those after it, none if greedy.
    """

    temperature: float
    values: Mapping[str, Any]
    on_logits: tuple[Bias | Penalty, ...]
    cuts: tuple[Cut, ...]
    reads_history: bool
    """True if a filter needs the tokens that come before a row."""

    @classmethod
    def of(cls, temperature: float = 1.0, **values: Any) -> SamplingParams:
        """Return parameters with these values of filters; the others are off."""
        filters = [
            each
            for each in FILTERS
            if values.get(each.setting, SETTINGS[each.setting].default) != SETTINGS[each.setting].default
        ]
        on_logits = tuple(each for each in filters if not isinstance(each, Cut))
        cuts = tuple(each for each in filters if isinstance(each, Cut))
        return cls(
            temperature=float(temperature),
            values={each.setting: values[each.setting] for each in filters},
            on_logits=on_logits,
            cuts=() if temperature < _GREEDY_BELOW else cuts,
            reads_history=any(isinstance(each, Penalty) for each in on_logits),
        )

    @classmethod
    def from_settings(cls, settings: Settings) -> SamplingParams:
        """Return the parameters of an answer with these settings."""
        values = {each.setting: getattr(settings, each.setting) for each in FILTERS}
        return cls.of(settings.temperature, **values)

    def value(self, name: str) -> Any:
        """Return the value of a filter's setting; its default if it is off."""
        return self.values.get(name, SETTINGS[name].default)

    @property
    def unfiltered(self) -> bool:
        """True if tokens are drawn from the softmax of the logits at the temperature."""
        return not self.greedy and not self.values

    @property
    def greedy(self) -> bool:
        """True if the distribution is one-hot at the argmax."""
        return self.temperature < _GREEDY_BELOW


def adjusted(logits: Tensor, params: SamplingParams, history: History | None = None) -> Tensor:
    """Apply biases and penalties to logits [rows, vocab]. Returns float32.

    `history` is that of the rows; it may be None unless `params.reads_history`.
    """
    logits = logits.float()
    bias = summed_bias(params, logits.shape[-1])
    if bias is not None:
        logits = logits + bias.to(logits.device)
    if not params.reads_history:
        return logits
    if history is None:
        raise ValueError("Penalties need the history of the rows.")
    changed = logits if history.ids is None else logits[:, history.ids]
    for each in params.on_logits:
        if isinstance(each, Penalty):
            changed = each.function(changed, params.values[each.setting], history)
    return changed if history.ids is None else logits.index_copy(1, history.ids, changed)


def summed_bias(params: SamplingParams, vocab: int) -> Tensor | None:
    """Return the sum of all biases [vocab], float32, on the host; None if there are none."""
    rows = [
        each.row(params.values[each.setting], vocab) for each in params.on_logits if isinstance(each, Bias)
    ]
    return sum(rows[1:], rows[0]) if rows else None


def filtered_logits(logits: Tensor, params: SamplingParams, history: History | None = None) -> Tensor:
    """Apply biases, penalties, temperature and cuts, in this order, to logits [rows, vocab].

    Returns float32 [rows, vocab] with removed entries at -inf. `params.temperature` must be above 0. At least
    one token is kept. Every cut measures the distribution that the filters before it leave.
    """
    scores = adjusted(logits, params, history) * (1 / params.temperature)
    for each in params.cuts:
        scores = scores.masked_fill(each.function(scores, params.values[each.setting]), -torch.inf)
    return scores


def probabilities(logits: Tensor, params: SamplingParams, history: History | None = None) -> Tensor:
    """Return the distribution to draw from: float32 like logits [rows, vocab], one-hot if greedy."""
    if params.greedy:
        best = adjusted(logits, params, history).argmax(-1)
        return torch.nn.functional.one_hot(best, logits.shape[-1]).float()
    return filtered_logits(logits, params, history).softmax(-1)


# --- the filters ------------------------------------------------------------------------------------


def _biases(value: Mapping[int, float], vocab: int) -> Tensor:
    row = torch.zeros(vocab)
    row[list(value)] = torch.tensor(list(value.values()), dtype=torch.float32)
    return row


def _bans(value: Collection[int], vocab: int) -> Tensor:
    row = torch.zeros(vocab)
    row[list(value)] = -torch.inf
    return row


def _repetition(logits: Tensor, value: Any, history: History) -> Tensor:
    """Keskar et al. 2019 (CTRL), section 4.1, over prompt and answer, as transformers has it."""
    weaker = torch.where(logits < 0, logits * value, logits / value)
    return torch.where(history.in_all > 0, weaker, logits)


def _frequency(logits: Tensor, value: Any, history: History) -> Tensor:
    """As OpenAI has it: minus the value for each time that the answer has a token."""
    return logits - history.in_answer * value


def _presence(logits: Tensor, value: Any, history: History) -> Tensor:
    """As OpenAI has it: minus the value if the answer has a token."""
    return logits - (history.in_answer > 0) * value


def _top_k(scores: Tensor, value: int) -> Tensor:
    """All but the best `value` tokens and those that equal the last of them."""
    return scores < scores.topk(min(value, scores.shape[-1]), dim=-1).values[..., -1:]


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """All but the smallest set whose mass reaches top_p (Holtzman et al. 2020), the lower ids among equals.

    Sorting a whole vocabulary takes longer than a small model's forward, and a nucleus is rarely large. So
    the best few hundred are sorted first, and the whole vocabulary only if their mass does not reach top_p.
    """
    # Not logsumexp: beside logits of ten thousand, as a low temperature makes them, it loses its digits.
    vocab, total = scores.shape[-1], (scores - scores.amax(-1, keepdim=True)).exp_().sum(-1, keepdim=True)
    for size in (min(_NUCLEUS_FIRST, vocab), vocab):
        best = scores.topk(size, dim=-1).values
        probs = (best - best[..., :1]).exp_() / total
        mass = probs.cumsum(-1)
        if size == vocab or bool((mass[..., -1] >= top_p).all()):
            break
    # A token is kept if the mass of the better ones is below top_p; the best is always kept.
    kept_count = (mass - probs < top_p).sum(-1, keepdim=True).clamp(min=1)
    threshold = best.gather(-1, kept_count - 1)
    better, equal = scores > threshold, scores == threshold
    return ~(better | (equal & (equal.cumsum(-1) <= kept_count - better.sum(-1, keepdim=True))))


def _min_p(scores: Tensor, value: float) -> Tensor:
    """Tokens with less than value times the highest probability (Nguyen et al. 2024)."""
    probs = scores.softmax(-1)
    return probs < value * probs.amax(-1, keepdim=True)


def _typical(scores: Tensor, value: Any) -> Tensor:
    """All but the smallest set whose mass reaches the value, those tokens first whose information is closest
    to the entropy (Meister et al. 2023), and the equals of its last.
    """
    log_probs = scores.log_softmax(-1)
    probs = log_probs.exp()
    entropy = -torch.xlogy(probs, probs).sum(-1, keepdim=True)
    distance = (-log_probs - entropy).abs()  # infinite for a token that was removed
    ordered, order = distance.sort(dim=-1)
    mass = probs.gather(-1, order).cumsum(-1)
    last = (mass < value).sum(-1, keepdim=True).clamp(max=scores.shape[-1] - 1)
    return distance > ordered.gather(-1, last)


FILTERS: tuple[Filter, ...] = (
    Bias("logit_bias", _biases),
    Bias("banned_tokens", _bans),
    Penalty("repetition_penalty", _repetition, transformers="repetition_penalty"),
    Penalty("frequency_penalty", _frequency),
    Penalty("presence_penalty", _presence),
    Cut("top_k", _top_k, transformers="top_k", by_rank=True),
    Cut("top_p", _nucleus, transformers="top_p", by_rank=True),
    Cut("min_p", _min_p, transformers="min_p", by_rank=True),
    Cut("typical_p", _typical, transformers="typical_p"),
)
"""Every filter, in the order in which they apply: biases, penalties, the temperature, cuts by rank (top-k,
top-p, min-p; a device computes these together), other cuts.
"""
