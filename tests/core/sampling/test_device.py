"""Sampling in fixed buffers, as CUDA graphs capture it: results equal to the host's, no synchronization, no
new capture for new settings, a fallback when a graph fails. Plain calls replace capture here.
"""

import gc
import weakref
from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from transformers import AutoModelForCausalLM

from specdec_core.decoding import DecodedRound, Decoding, Limits
from specdec_core.drafting import SOURCES, ModelDrafter, NgramDrafter
from specdec_core.drafting.length import FixedGamma
from specdec_core.loading.warm_up import rehearse_rounds
from specdec_core.runners import CudaGraphRunner
from specdec_core.runners.static import StaticRunner
from specdec_core.sampling import DeviceSampling, Verdict, filters as declared, sampler_for
from specdec_core.sampling.device_filters import DEFAULT_WIDTH, FilterPath, FilterPlan
from specdec_core.sampling.device_rules import CoupledRule, GreedyRule, RejectionRule
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.settings import Settings
from tests.support.tiny_models import ARCHITECTURES, VOCAB, noisy_copy, tiny_model

CPU = torch.device("cpu")
PROMPT = [5, 9, 14, 9, 14, 31]
RULES = {
    "greedy": {"temperature": 0},
    "rejection": {"temperature": 1.0},
    "coupled": {"temperature": 1.0, "verification": "coupled"},
}
FILTERS = {
    "no filter": {},
    "top-k": {"top_k": 7},
    "top-p": {"top_p": 0.7},
    "min-p": {"min_p": 0.1},
    "all three": {"top_k": 20, "top_p": 0.9, "min_p": 0.02},
    "typical-p": {"typical_p": 0.6},
    "typical-p and top-p": {"typical_p": 0.8, "top_p": 0.9},
    "repetition": {"repetition_penalty": 1.4},
    "frequency and presence": {"frequency_penalty": 0.4, "presence_penalty": -0.3},
    "bias and bans": {"logit_bias": {3: 2.0}, "banned_tokens": [9, 14]},
    "penalty and min-p": {"repetition_penalty": 1.2, "min_p": 0.05},
    "alternatives": {"alternatives": 3},
}
WAYS = [(GreedyRule, FilterPlan()), *product([RejectionRule, CoupledRule], map(FilterPlan, FilterPath))]
OTHER_CUTS = tuple(each for each in declared.FILTERS if isinstance(each, declared.Cut) and not each.by_rank)
WAYS += [
    (GreedyRule, FilterPlan(FilterPath.NONE, True, True, (), True)),
    *product(
        [RejectionRule, CoupledRule],
        [FilterPlan(path, True, True, OTHER_CUTS, True) for path in FilterPath],
    ),
]


class Calls:
    """Replacement of capture: a replay calls the function again. Call number `failing`, if any, raises."""

    def __init__(self, failing: int | None = None) -> None:
        self.captures = self.calls = 0
        self._failing = failing

    def __call__(self, function):
        self.captures += 1
        result = self._called(function)
        return lambda: result.copy_(self._called(function)), result

    def _called(self, function):
        self.calls += 1
        if self.calls == self._failing:
            raise RuntimeError("the device is in a bad mood\nand says so at length")
        return function()


class Pair:
    """A target and a drafter on runners for fixed shapes, with buffers for sampling."""

    def __init__(self, capture: Calls | None = None, noise: float = 0.05, width: int = DEFAULT_WIDTH) -> None:
        model = tiny_model("llama")
        make = StaticRunner if capture is None else lambda model: CudaGraphRunner(model, capture=capture)
        self.target, self.drafter = make(model), make(noisy_copy(model, noise))
        self.sampling = DeviceSampling(CPU, VOCAB, width)

    def answer(self, on_device: bool, **settings) -> tuple[list[int], list[DecodedRound]]:
        settings = Settings(**{"max_new_tokens": 40, "gamma": 3, "seed": 4, **settings})
        drafters = {"model": ModelDrafter(self.drafter, self.drafter.new_cache()), "ngram": NgramDrafter()}
        context = list(PROMPT)
        rounds = Decoding(
            context,
            self.target,
            self.target.new_cache(),
            [drafters[source] for source in SOURCES[settings.drafting]],
            sampler_for(settings, KeyedNoise(settings.seed), self.sampling if on_device else None),
            FixedGamma(settings.gamma),
            lambda ids: (len(ids), None),
            Limits(settings.max_new_tokens, 256),
        ).rounds(lambda: False)
        return context, list(rounds)


def _assert_same_rounds(got: list[DecodedRound], expected: list[DecodedRound]) -> None:
    for a, b in zip(got, expected, strict=True):
        a, b = a.verdict, b.verdict
        assert (a.drafts, a.accepted, a.token) == (b.drafts, b.accepted, b.token)
        assert (a.token_drafter_prob is None) == (b.token_drafter_prob is None)
        assert _probs(a) == pytest.approx(_probs(b), rel=1e-5, abs=1e-7)


def _probs(verdict: Verdict) -> list[float]:
    of_token = [verdict.token_target_prob, verdict.token_drafter_prob or 0.0]
    return [*verdict.target_probs, *verdict.drafter_probs, *of_token]


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("rule", RULES)
def test_replayed_steps_equal_the_host_s_sampling_token_for_token_with_p_and_q(rule, filters):
    settings = RULES[rule] | FILTERS[filters]
    replayed, expected = Pair(Calls()).answer(True, **settings), Pair().answer(False, **settings)
    assert replayed[0] == expected[0]
    _assert_same_rounds(replayed[1], expected[1])
    accepted = {rnd.verdict.accepted for rnd in expected[1][1:]}
    assert 3 in accepted, "the next round's first draft step has two rows"
    assert accepted - {3}, "it has one row"


@pytest.mark.parametrize("filters", ["top-k", "top-p", "all three"])
def test_where_nothing_overflows_coupled_choices_among_the_best_equal_the_host_s(filters):
    settings = {**RULES["coupled"], **FILTERS[filters], "temperature": 0.1}
    got, expected = Pair(Calls(), width=40).answer(True, **settings), Pair().answer(False, **settings)
    assert got[0] == expected[0]
    _assert_same_rounds(got[1], expected[1])


class Overflows(CoupledRule):
    """The coupled rule, with a count of the rounds that were verified twice."""

    def __init__(self, sampling: DeviceSampling, plan: FilterPlan) -> None:
        super().__init__(sampling, plan)
        self.verified_again = 0

    def verdict(self, outcome, gamma: int, alternatives: int = 0) -> Verdict:
        self.verified_again += self._decoded(outcome, gamma).overflows
        return super().verdict(outcome, gamma, alternatives)


@pytest.mark.parametrize("filters", [{"top_p": 0.95}, {"top_p": 0.5}, {"top_p": 0.9, "min_p": 0.2}])
def test_where_rows_overflow_coupled_text_equals_the_host_s_and_the_baseline_s(filters):
    pair = Pair(Calls(), width=6)
    plan = FilterPlan(FilterPath.BEST)
    rule = Overflows(pair.sampling, plan)
    pair.sampling._rules[CoupledRule, plan] = rule
    settings = {**RULES["coupled"], "temperature": 0.5, "max_new_tokens": 60, **filters}
    context, rounds = pair.answer(True, **settings)
    expected, host_rounds = Pair().answer(False, **settings)
    assert context == expected == pair.answer(True, **settings, gamma=0)[0]
    wanted = dict(_target_probs(host_rounds))
    got = dict(_target_probs(rounds))
    assert got == pytest.approx({at: wanted[at] for at in got}, rel=1e-4)
    assert rule.verified_again > 0


def _target_probs(rounds: list[DecodedRound]) -> Iterator[tuple[int, float]]:
    """The place of every emitted token in the answer, and p of it."""
    at = 0
    for verdict in (rnd.verdict for rnd in rounds):
        for p in [*verdict.target_probs[: verdict.accepted], verdict.token_target_prob]:
            yield at, p
            at += 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("drafting", ["ngram", "both"])
def test_ngram_drafts_equal_the_host_s_too(rule, drafting):
    # A low temperature repeats itself, so that there is something to draft.
    settings = {**RULES[rule], "drafting": drafting, "max_new_tokens": 60}
    settings["temperature"] *= 0.2
    replayed, expected = Pair(Calls()).answer(True, **settings), Pair().answer(False, **settings)
    assert replayed[0] == expected[0]
    _assert_same_rounds(replayed[1], expected[1])
    assert {rnd.source for rnd in expected[1] if rnd.verdict.drafts} == {*SOURCES[drafting]}


def test_changed_settings_capture_nothing_anew():
    capture = Calls()
    pair = Pair(capture)
    # Rounds of every kind occur: all drafts accepted or not, and fewer of them before the limit.
    penalty = {"repetition_penalty": 1.3}
    for filters in ({}, {"top_p": 0.9}, {"min_p": 0.1}, penalty):
        for tokens in (2, 3, 4, 5, 40):
            pair.answer(True, temperature=1.0, max_new_tokens=tokens, **filters)
    captured = capture.captures
    changed = {"repetition_penalty": 1.9, "temperature": 0.7}
    for settings in (
        {"temperature": 0.3},
        {"temperature": 1.7, "top_k": 5},
        {"min_p": 0.2, "seed": 9},
        changed,
    ):
        context, rounds = pair.answer(True, **settings)
        expected, host_rounds = Pair().answer(False, **settings)
        assert context == expected
        _assert_same_rounds(rounds, host_rounds)
    assert capture.captures == captured


def test_answers_that_take_turns_keep_their_own_settings():
    pair = Pair(Calls())
    lanes = [
        {"temperature": 0.4, "seed": 1},
        {"temperature": 1.5, "top_k": 9, "seed": 2},
        {"temperature": 0.4, "seed": 3, "frequency_penalty": 1.0},
        {"temperature": 0.9, "seed": 4, "frequency_penalty": 0.5, "logit_bias": {7: 3.0}},
        {"temperature": 0.9, "seed": 5, "logit_bias": {8: 3.0}},
    ]
    alone = [pair.answer(True, **lane)[0] for lane in lanes]
    generators, contexts = [], []
    for lane in lanes:
        settings = Settings(max_new_tokens=40, gamma=3, **lane)
        contexts.append(list(PROMPT))
        generators.append(
            Decoding(
                contexts[-1],
                pair.target,
                pair.target.new_cache(),
                [ModelDrafter(pair.drafter, pair.drafter.new_cache())],
                sampler_for(settings, KeyedNoise(settings.seed), pair.sampling),
                FixedGamma(3),
                lambda ids: (len(ids), None),
                Limits(40, 256),
            ).rounds(lambda: False)
        )
    while generators:
        generators = [rounds for rounds in generators if next(rounds, None) is not None]
    assert contexts == alone


@pytest.mark.parametrize("failing", [5, 20, 60, 61, 62])
@pytest.mark.parametrize("rule", RULES)
def test_a_graph_that_fails_in_an_answer_is_replaced_by_the_same_function_uncaptured(rule, failing):
    checked = Calls()
    Pair(checked)
    capture = Calls(failing=checked.calls + failing)
    pair = Pair(capture)
    context, rounds = pair.answer(True, **RULES[rule], max_new_tokens=60)
    expected, _ = Pair().answer(True, **RULES[rule], max_new_tokens=60)
    assert context == expected
    assert rounds[-1].finish_reason == "length"
    reasons = [runner.reason for runner in (pair.target, pair.drafter) if runner.reason is not None]
    assert len(reasons) == 1
    assert reasons[0].startswith("a graph failed during an answer")
    assert reasons[0].endswith("bad mood")


@pytest.mark.parametrize(("kind", "path"), WAYS)
@torch.inference_mode()
def test_a_step_never_reads_a_value_on_the_host(kind, path):
    """Fake tensors have shapes but no values: reading one raises."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        rule = kind(DeviceSampling(CPU, VOCAB, width=8), path)
        for dtype in (torch.float32, torch.bfloat16):
            assert rule.draft(torch.randn(1, VOCAB, dtype=dtype)).shape == (1,)
            for gamma in (0, 1, 4):
                outcome = rule.verify(torch.randn(gamma + 1, VOCAB, dtype=dtype))
                assert (outcome.dim(), outcome.dtype) == (1, torch.uint8)


@torch.inference_mode()
def test_the_forward_with_its_step_never_reads_a_value_on_the_host():
    runner = StaticRunner(tiny_model("llama"))
    runner.forward(runner.new_cache(), torch.tensor([3, 4]))
    with FakeTensorMode(allow_non_fake_inputs=True):
        rule = RejectionRule(DeviceSampling(CPU, VOCAB, width=8), FilterPlan(FilterPath.BEST))
        for rows in (1, 2):
            drawn = runner.compute(torch.zeros(rows).long(), torch.arange(rows), 256, 1, rule.draft)
            assert drawn.shape == (1,)
        outcome = runner.compute(torch.zeros(5).long(), torch.arange(5), 256, 0, rule.verify)
        assert outcome.dtype == torch.uint8


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch built with CUDA, but no GPU")
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_no_step_on_a_gpu_mixes_devices_or_reads_a_value_on_the_host(architecture):
    """Fake tensors on a GPU run the operations that a GPU would, without values."""
    config = tiny_model(architecture).config
    with FakeTensorMode():
        with torch.device("cuda"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            runner = StaticRunner(model, why_unfused="fake tensors run no kernels of Triton")
            ids, prompt = torch.zeros(5).long(), torch.zeros(40).long()
            sampling = DeviceSampling(torch.device("cuda"), config.vocab_size, width=8)
        with torch.inference_mode():
            runner.forward(runner.new_cache(), prompt)
            for rule in (sampling.rule(kind, plan) for kind, plan in WAYS):
                for rows in (1, 2):
                    runner.compute(ids[:rows], runner.positions(5, 5 + rows), 256, 1, rule.draft)
                outcome = runner.compute(ids, runner.positions(5, 10), 256, 0, rule.verify)
                assert outcome.dtype == torch.uint8
                assert outcome.device.type == "cuda"


def test_the_check_for_reading_values_can_fail():
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        torch.randn(3).argmax().item()


@pytest.mark.parametrize("drafting", ["model", "ngram", "both"])
@pytest.mark.parametrize("rule", RULES)
def test_after_a_rehearsal_no_answer_captures_anything(rule, drafting):
    capture = Calls()
    pair = Pair(capture)
    settings = Settings(**RULES[rule])
    sampler = sampler_for(settings, KeyedNoise(0), pair.sampling)
    rehearse_rounds(pair.target, pair.drafter if "model" in SOURCES[drafting] else None, sampler, range(5))
    captured = capture.captures
    for gamma in (0, 1, 2, 4):
        pair.answer(True, **RULES[rule], gamma=gamma, drafting=drafting)
    assert capture.captures == captured


def test_prompts_of_few_tokens_capture_nothing():
    capture = Calls()
    runner = CudaGraphRunner(tiny_model("llama"), capture=capture)
    captured = capture.captures
    for rows in (1, 3, 9):
        runner.prefill(runner.new_cache(), PROMPT[:1] * rows)
    assert capture.captures == captured


def test_an_unloaded_pair_leaves_no_buffers_behind():
    sampling = DeviceSampling(CPU, VOCAB)
    plans = [FilterPlan(FilterPath.BEST), FilterPlan(FilterPath.BEST)]
    assert sampling.rule(CoupledRule, plans[0]) is sampling.rule(CoupledRule, plans[1])
    assert sampling.gumbel.shape[1] == VOCAB
    reference = weakref.ref(sampling)
    del sampling
    gc.collect()
    assert reference() is None
