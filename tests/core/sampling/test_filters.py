"""Every filter against formulas and transformers' own processors, and the seam that declares it."""

from itertools import product

import pytest
import torch
from transformers.generation import logits_process as theirs

from specdec_core.sampling.filters import FILTERS, Bias, Cut, Penalty, SamplingParams, adjusted, probabilities
from specdec_core.sampling.history import History, Tally, drafts_before
from specdec_core.settings import SETTINGS, Settings
from tests.support.reference_sampling import reference_distribution

VOCAB = 40
PROMPT, ANSWER = [3, 5, 5, 9, 20], [5, 7, 7, 7, 30]
VALUES = {
    "logit_bias": {0: 3.0, 7: -1.5, 39: 100.0},
    "banned_tokens": [7, 11, 12],
    "repetition_penalty": 1.7,
    "frequency_penalty": 0.8,
    "presence_penalty": -1.3,
    "top_k": 6,
    "top_p": 0.7,
    "min_p": 0.08,
    "typical_p": 0.5,
}
PAIRS = [pair for pair in product(VALUES, VALUES) if pair[0] < pair[1]]


def _logits(rows: int = 1, seed: int = 2) -> torch.Tensor:
    return 2.5 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(seed))


def _history() -> History:
    tally = Tally(VOCAB)
    tally.update(PROMPT)
    tally.update([*PROMPT, *ANSWER])
    return tally.history


def test_every_filter_has_a_setting_whose_default_switches_it_off_and_a_value_in_these_tests():
    names = [each.setting for each in FILTERS]
    assert set(names) == set(VALUES)
    assert all(name in SETTINGS for name in names)
    assert SamplingParams.from_settings(Settings(temperature=0.8)).unfiltered


@pytest.mark.parametrize("temperature", [0.0, 0.6, 1.0, 1.9])
@pytest.mark.parametrize("names", [*[(name,) for name in VALUES], *PAIRS, tuple(VALUES)], ids="+".join)
def test_probabilities_follow_the_formulas(names, temperature):
    settings = Settings(temperature=temperature, **{name: VALUES[name] for name in names})
    params = SamplingParams.from_settings(settings)
    for seed in range(5):
        logits = _logits(seed=seed)
        got = probabilities(logits, params, _history())[0]
        expected = torch.tensor(reference_distribution(logits[0].tolist(), settings, PROMPT, ANSWER))
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "processor"),
    {
        "repetition_penalty": lambda value: theirs.RepetitionPenaltyLogitsProcessor(value),
        "typical_p": lambda value: theirs.TypicalLogitsWarper(value),
        "top_k": lambda value: theirs.TopKLogitsWarper(value),
        "top_p": lambda value: theirs.TopPLogitsWarper(value),
        "min_p": lambda value: theirs.MinPLogitsWarper(value),
        "logit_bias": lambda value: theirs.SequenceBiasLogitsProcessor({(k,): v for k, v in value.items()}),
        "banned_tokens": lambda value: theirs.NoBadWordsLogitsProcessor([[k] for k in value]),
    }.items(),
)
def test_a_filter_equals_transformers_own(name, processor):
    ids = torch.tensor([[*PROMPT, *ANSWER]])
    params = SamplingParams.of(1.0, **{name: VALUES[name]})
    for seed in range(20):
        logits = _logits(seed=seed)
        expected = processor(VALUES[name])(ids, logits.clone()).softmax(-1)
        got = probabilities(logits, params, _history())
        assert torch.equal(got > 0, expected > 0)
        torch.testing.assert_close(got, expected, atol=1e-7, rtol=1e-5)


def test_a_row_s_history_is_the_context_and_the_drafts_before_it():
    drafts = [7, 30, 7, 2]
    tally = Tally(VOCAB)
    tally.update(PROMPT)
    tally.update([*PROMPT, *ANSWER[:2]])
    tally.update([*PROMPT, *ANSWER])
    history = History.of_rows(tally.counts, torch.tensor(drafts), drafts_before(5, 4))
    for row in range(5):
        answer = [*ANSWER, *drafts[:row]]
        assert history.in_answer[row].tolist() == [answer.count(token) for token in range(VOCAB)]
        everything = [*PROMPT, *answer]
        assert history.in_all[row].tolist() == [everything.count(token) for token in range(VOCAB)]
    assert tally.counts[1].sum() == len(ANSWER), "the tally itself has no drafts"


def test_a_penalty_without_a_history_is_an_error():
    with pytest.raises(ValueError, match="need the history"):
        adjusted(_logits(), SamplingParams.of(frequency_penalty=1.0))


def test_the_kinds_are_in_the_order_in_which_a_device_computes_them():
    kinds = [Bias, Penalty, Cut]
    order = [(kinds.index(type(each)), isinstance(each, Cut) and not each.by_rank) for each in FILTERS]
    assert order == sorted(order)
    assert [each.setting for each in FILTERS if isinstance(each, Cut) and each.by_rank] == [
        "top_k",
        "top_p",
        "min_p",
    ]


def test_a_penalty_at_its_default_changes_nothing_nor_does_any_for_a_token_that_does_not_come_before():
    logits, history = _logits(3), _history()
    logits[0, 4], logits[1, 5] = -torch.inf, -torch.inf
    unseen = history.in_all[0] == 0
    for each in FILTERS:
        if isinstance(each, Penalty):
            assert torch.equal(each.function(logits, SETTINGS[each.setting].default, history), logits)
            changed = each.function(logits, VALUES[each.setting], history)
            assert torch.equal(changed[:, unseen], logits[:, unseen])


def test_the_history_of_known_tokens_alone_gives_the_same_logits():
    params = SamplingParams.of(**{name: VALUES[name] for name in list(VALUES)[:5]})
    tally, drafts = Tally(VOCAB), torch.tensor([7, 31, 7, 2])
    tally.update(PROMPT)
    tally.update([*PROMPT, *ANSWER])
    logits = _logits(5)
    kept = logits.clone()
    ways = (History.of_rows, History.of_known)
    dense, sparse = (adjusted(logits, params, way(tally.counts, drafts, drafts_before(5, 4))) for way in ways)
    assert torch.equal(dense, sparse)
    assert torch.equal(logits, kept)


def test_a_tally_that_ran_out_of_memory_counts_once_when_it_is_tried_again(monkeypatch):
    tally, failures = Tally(VOCAB), []
    tally.update([1, 2])
    index_add = torch.Tensor.index_add_

    def failing(tensor, *arguments):
        if not failures:
            failures.append(1)
            raise MemoryError
        return index_add(tensor, *arguments)

    monkeypatch.setattr(torch.Tensor, "index_add_", failing)
    with pytest.raises(MemoryError):
        tally.update([1, 2, 3, 3])
    tally.update([1, 2, 3, 3])
    tally.update([1, 2, 3, 3])
    assert tally.counts[:, :4].tolist() == [[0, 1, 1, 2], [0, 0, 0, 2]]


def test_cuts_do_not_apply_to_greedy_answers_and_penalties_do():
    params = SamplingParams.from_settings(Settings(temperature=0.0, **VALUES))
    assert params.cuts == ()
    assert [each.setting for each in params.on_logits] == list(VALUES)[:5]
    assert any(isinstance(each, Penalty) for each in params.on_logits)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_a_row_that_is_not_finite_stays_so_under_every_filter(name, bad):
    """Among the likeliest tokens; a penalty of -inf may hide +inf."""
    logits = _logits()
    logits[0, 2] = bad
    assert probabilities(logits, SamplingParams.of(1.0, **{name: VALUES[name]}), _history()).isnan().any()


def test_every_cut_keeps_a_token():
    for cut in FILTERS:
        if isinstance(cut, Cut):
            value = {"top_k": 1, "min_p": 0.999}.get(cut.setting, 1e-9)
            for scale in (0.0, 1.0, 1e4):
                params = SamplingParams.of(0.01, **{cut.setting: value})
                probs = probabilities(_logits(4) * scale, params)
                assert (probs > 0).any(-1).all()
                torch.testing.assert_close(probs.sum(-1), torch.ones(4))
