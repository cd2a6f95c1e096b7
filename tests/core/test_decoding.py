"""Speculative output equals the baseline's and transformers' own, and the caches hold what they should."""

import pytest
import torch

from specdec_core.decoding import Decoding, Limits
from specdec_core.drafting import ModelDrafter
from specdec_core.drafting.length import FixedGamma
from specdec_core.runners import runner_for
from specdec_core.sampling import sampler_for
from specdec_core.sampling.noise import KeyedNoise
from specdec_core.settings import Settings
from tests.support.tiny_models import ARCHITECTURES, VOCAB, noisy_copy, tiny_model

NEW_TOKENS = 40
SMALLEST_MARGIN = 1e-3


class Lanes:
    """A target and a drafter with fresh caches that a test can look into."""

    def __init__(self, architecture: str, noise: float = 0.05, make_runner=runner_for) -> None:
        model = tiny_model(architecture)
        self.target = make_runner(model)
        self.runner = make_runner(noisy_copy(model, noise))
        self.cache = self.target.new_cache()
        self.drafter = ModelDrafter(self.runner, self.runner.new_cache())

    def decode(self, context, settings, ends=lambda ids: (len(ids), None), cancelled=lambda: False):
        return Decoding(
            context,
            self.target,
            self.cache,
            [self.drafter] if settings.gamma else [],
            sampler_for(settings, KeyedNoise(settings.seed)),
            FixedGamma(settings.gamma),
            ends,
            Limits(settings.max_new_tokens, self.target.context_length),
        ).rounds(cancelled)


def _prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [
        torch.randint(3, VOCAB, (length,), generator=generator).tolist() for length in range(3, 3 + count)
    ]


def _answer(architecture: str, prompt: list[int], **settings) -> list[int]:
    context = list(prompt)
    for _ in Lanes(architecture).decode(context, Settings(max_new_tokens=NEW_TOKENS, **settings)):
        pass
    return context[len(prompt) :]


@torch.inference_mode()
def _assert_same(model, prompt: list[int], got: list[int], wanted: list[int]) -> None:
    """Equal, or different first where the two best logits are too close to call in float32."""
    if got == wanted:
        return
    at = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
    logits = model(torch.tensor([prompt + wanted[:at]])).logits[0, -1]
    best = logits.topk(2).values
    assert (best[0] - best[1]).item() < SMALLEST_MARGIN, f"diverged at {at}: {got[at]} for {wanted[at]}"


@pytest.mark.parametrize("gamma", [1, 3, 4, 8])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_speculative_equals_the_baseline_and_transformers(architecture, gamma):
    model = tiny_model(architecture)
    for prompt in _prompts(5):
        speculative = _answer(architecture, prompt, temperature=0, gamma=gamma)
        baseline = _answer(architecture, prompt, temperature=0, gamma=0)
        peer = model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=None,
            pad_token_id=0,
        )
        _assert_same(model, prompt, speculative, baseline)
        _assert_same(model, prompt, baseline, peer[0, len(prompt) :].tolist())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_coupled_with_a_seed_equals_the_baseline_with_that_seed(architecture):
    for seed, prompt in enumerate(_prompts(5)):
        common = {"temperature": 1.0, "verification": "coupled", "seed": seed}
        assert _answer(architecture, prompt, gamma=4, **common) == _answer(
            architecture, prompt, gamma=0, **common
        )


def test_a_seed_repeats_a_rejection_answer_and_another_seed_does_not():
    prompt = _prompts(1)[0]
    first = _answer("llama", prompt, temperature=1.0, gamma=3, seed=4)
    assert _answer("llama", prompt, temperature=1.0, gamma=3, seed=4) == first
    assert _answer("llama", prompt, temperature=1.0, gamma=3, seed=5) != first


@torch.inference_mode()
def _assert_caches_hold_the_context(lanes: Lanes, context: list[int], all_stood: bool) -> None:
    """The lengths the design names, and next logits equal to a fresh full forward's."""
    assert lanes.cache.length == len(context) - 1
    assert lanes.drafter.cache.length == len(context) - (2 if all_stood else 1)
    for runner, cache in ((lanes.target, lanes.cache), (lanes.runner, lanes.drafter.cache)):
        held = cache.length
        rest = torch.tensor(context[held:])
        logits = runner.forward(cache, rest)[-1]
        cache.rewind(held)
        fresh = runner.model(torch.tensor([context])).logits[0, -1]
        torch.testing.assert_close(logits, fresh, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("noise", [0.0, 0.05, 3.0], ids=["all stand", "some stand", "few stand"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_after_every_round_both_caches_hold_the_context(architecture, noise):
    lanes = Lanes(architecture, noise)
    context = _prompts(1)[0]
    stood = set()
    for rnd in lanes.decode(context, Settings(max_new_tokens=NEW_TOKENS, temperature=0, gamma=3)):
        if rnd.index > 0 and rnd.verdict.drafts:
            all_stood = rnd.verdict.accepted == len(rnd.verdict.drafts)
            stood.add(rnd.verdict.accepted)
            _assert_caches_hold_the_context(lanes, context, all_stood)
    if noise == 0.0:
        assert 3 in stood
    if noise == 3.0:
        assert 0 in stood


def test_an_answer_that_ends_inside_the_drafts_leaves_nothing_after_it_in_the_caches():
    prompt = _prompts(1)[0]
    whole = _answer("llama", prompt, temperature=0, gamma=0)
    eos = whole[9]
    end = whole.index(eos) + 1

    def ends(ids):
        return (ids.index(eos) + 1, "eos") if eos in ids else (len(ids), None)

    lanes = Lanes("llama", noise=0.0)
    context = list(prompt)
    settings = Settings(max_new_tokens=NEW_TOKENS, temperature=0, gamma=4)
    rounds = list(lanes.decode(context, settings, ends))
    assert context == prompt + whole[:end]
    assert rounds[-1].finish_reason == "eos"
    assert lanes.cache.length <= len(context) - 1
    assert lanes.drafter.cache.length <= len(context) - 1
    assert rounds[-1].kept <= rounds[-1].verdict.accepted + 1
    assert (
        len(rounds[-1].verdict.drafts) == rounds[-1].kept
        or rounds[-1].kept == rounds[-1].verdict.accepted + 1
    )


def test_max_new_tokens_is_met_exactly_for_every_gamma():
    for gamma in range(6):
        for wanted in (1, 2, 7):
            context = _prompts(1)[0]
            before = len(context)
            settings = Settings(max_new_tokens=wanted, temperature=0, gamma=gamma)
            rounds = list(Lanes("llama").decode(context, settings))
            assert len(context) - before == wanted
            assert rounds[-1].finish_reason == "length"


def test_the_context_is_never_overrun():
    lanes = Lanes("gpt2")
    limit = lanes.target.context_length
    context = (_prompts(1)[0] * limit)[: limit - 6]
    rounds = list(lanes.decode(context, Settings(max_new_tokens=100, temperature=0, gamma=5)))
    assert len(context) == limit
    assert rounds[-1].finish_reason == "context"


def test_cancelling_ends_after_the_round_in_progress_and_the_caches_serve_on():
    lanes = Lanes("llama")
    context = _prompts(1)[0]
    seen = []
    rounds = lanes.decode(context, Settings(temperature=0, gamma=2), cancelled=lambda: len(seen) >= 3)
    for rnd in rounds:
        seen.append(rnd)
    assert [rnd.finish_reason for rnd in seen] == [None, None, None, "cancelled"]
    assert seen[-1].verdict is None
    assert lanes.cache.length == len(context) - 1


def test_closing_the_iteration_early_leaves_the_caches_at_the_context():
    lanes = Lanes("llama")
    context = _prompts(1)[0]
    rounds = lanes.decode(context, Settings(temperature=0, gamma=4))
    next(rounds), next(rounds)
    rounds.close()
    assert lanes.cache.length == len(context) - 1
    assert lanes.drafter.cache.length <= len(context) - 1


def test_the_drafter_takes_in_a_long_prompt_before_the_round_is_timed():
    lanes = Lanes("llama")
    context = _prompts(1)[0] * 20
    rounds = lanes.decode(context, Settings(max_new_tokens=8, temperature=0, gamma=2))
    next(rounds)
    assert lanes.drafter.cache.length == 0, "the first token does not wait for the drafter"
    assert lanes.drafter.catch_up(context, lambda: False)
    assert lanes.drafter.cache.length == len(context) - 1
    rounds.close()
