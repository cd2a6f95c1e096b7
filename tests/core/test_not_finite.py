"""Logits with NaN, +inf or nothing but -inf end an answer with the model's name; -inf alone is a mask."""

import copy
import math
import shutil
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import specdec_core as sd
from specdec_core.runners import runner_for
from specdec_core.runners.static import StaticRunner
from specdec_core.sampling import DeviceSampling, sampler_for
from specdec_core.sampling.noise import KeyedNoise

HI = "Once upon a time"
VOCAB = 50
CONTEXT = [3, 1, 4]
RULES = {
    "greedy": {"temperature": 0.0},
    "rejection": {},
    "top-p": {"top_p": 0.8},
    "top-k and min-p": {"top_k": 7, "min_p": 0.1},
    "coupled": {"verification": "coupled"},
}
BAD_ROWS = {
    "NaN": (7, math.nan),
    "NaN at the first token": (0, math.nan),
    "infinity": (9, math.inf),
    "no token left": (slice(None), -math.inf),
}


def _settings(**changed) -> sd.Settings:
    return sd.Settings(**{"temperature": 1.0, "seed": 2, "gamma": 3, "max_new_tokens": 20, **changed})


def _verdict(rule: str, where: str, drafter: torch.Tensor, target: torch.Tensor, drafting: str = "model"):
    """The outcome of a round with these logits: [drafts, vocab] and [drafts + 1, vocab]."""
    sampling = DeviceSampling(torch.device("cpu"), VOCAB) if where == "device" else None
    sampler = sampler_for(_settings(**RULES[rule]), KeyedNoise(5), sampling)
    sampler.start_round(CONTEXT, len(drafter))
    if drafting == "ngram":
        sampler.take([8, 3, 2][: len(drafter)])
    else:
        for step, row in enumerate(drafter):
            sampler.draft(step)(row[None])
    return sampler.read(sampler.verify(target))


def _logits(drafts: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = 3 * torch.randn(drafts + 1, VOCAB, generator=generator)
    return target[:drafts].clone(), target


WAYS = list(product(RULES, ["host", "device"]))


@pytest.mark.parametrize(("rule", "where"), WAYS)
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_the_model_of_a_bad_row_is_known(rule, where, bad):
    at, value = BAD_ROWS[bad]
    drafter, target = _logits()
    assert _verdict(rule, where, drafter, target).not_finite is None
    for row in range(3):
        broken = drafter.clone()
        broken[row, at] = value
        assert _verdict(rule, where, broken, target).not_finite == "drafter"
    for row, drafting in product(range(3), ["model", "ngram"]):
        broken = target.clone()
        broken[row, at] = value
        assert _verdict(rule, where, drafter, broken, drafting).not_finite == "target"
    alone = target[:1].clone()
    alone[0, at] = value
    assert _verdict(rule, where, drafter[:0], alone).not_finite == "target"


@pytest.mark.parametrize(("rule", "where"), WAYS)
def test_masked_tokens_are_legal(rule, where):
    drafter, target = _logits()
    drafter[:, 20:], target[:, 30:] = -math.inf, -math.inf
    verdict = _verdict(rule, where, drafter, target)
    assert verdict.not_finite is None
    assert max(verdict.drafts) < 20
    assert verdict.token < 30


@pytest.mark.parametrize("rule", ["greedy", "coupled"])
def test_a_broken_drafter_of_one_answer_says_nothing_about_the_n_gram_drafts_of_the_next(rule):
    sampling = DeviceSampling(torch.device("cpu"), VOCAB)
    drafter, target = _logits()
    for draws in (True, False):
        sampler = sampler_for(_settings(**RULES[rule]), KeyedNoise(5), sampling)
        sampler.start_round(CONTEXT, 3)
        if draws:
            for step, row in enumerate(drafter * math.nan):
                sampler.draft(step)(row[None])
        else:
            sampler.take([4, 4, 4])
        assert sampler.read(sampler.verify(target)).not_finite == ("drafter" if draws else None)


# A pair with a token whose embedding is broken: answers without it are right


class Pair:
    """An engine over copies of the pair's models, on the host or in buffers for a device, and their
    embeddings.
    """

    def __init__(self, engine: sd.Engine, where: str) -> None:
        models = [copy.deepcopy(runner.model) for runner in engine.pair.runners]
        target, drafter = map(StaticRunner if where == "device" else runner_for, models)
        pair = replace(engine.pair, target=target, drafter=drafter)
        if where == "device":
            # In the place where the pair of a GPU keeps it.
            pair.__dict__["sampling"] = DeviceSampling(torch.device("cpu"), target.vocab_size)
        self.engine = sd.Engine(pair, engine.info)
        embeddings = [model.get_input_embeddings().weight.data for model in models]
        self._embeddings = dict(zip(("target", "drafter"), embeddings, strict=True))

    @contextmanager
    def broken(self, model: str, token: int):
        """Within it the embedding of a token is NaN."""
        weights = self._embeddings[model]
        whole = weights[token].clone()
        weights[token] = math.nan
        yield
        weights[token] = whole


@pytest.fixture(params=["host", "device"])
def pair(request, engine) -> Pair:
    return Pair(engine, request.param)


def _follow_up(text: str) -> list[sd.Message]:
    roles = [("user", HI), ("assistant", text), ("user", "more")]
    return [{"role": role, "content": content} for role, content in roles]


@pytest.mark.parametrize("model", ["target", "drafter"])
@pytest.mark.parametrize("rule", ["greedy", "rejection", "coupled"])
def test_the_error_names_the_model_and_the_pair_goes_on_serving(pair, pair_folders, model, rule):
    settings = _settings(**RULES[rule])
    session = pair.engine.session()
    wanted = pair.engine.generate(HI, settings, session)
    token = wanted.prompt_token_ids[-2]
    with pair.broken(model, token):
        folder = pair_folders[model == "drafter"]
        with pytest.raises(
            sd.AnswerError, match=f"The {model}, {folder}, computes logits that are not finite"
        ):
            pair.engine.generate(HI, settings)
    assert pair.engine.generate(HI, settings).token_ids == wanted.token_ids
    follow_up = pair.engine.generate(_follow_up(wanted.text), settings, session)
    fresh = pair.engine.session({wanted.text: wanted.token_ids})
    assert pair.engine.generate(_follow_up(wanted.text), settings, fresh).token_ids == follow_up.token_ids


def test_a_broken_drafter_is_no_matter_where_it_does_not_draft(pair):
    settings = _settings(gamma=0)
    wanted = pair.engine.generate(HI, settings)
    with pair.broken("drafter", wanted.prompt_token_ids[0]):
        assert pair.engine.generate(HI, settings).token_ids == wanted.token_ids
        assert pair.engine.generate(HI, _settings(drafting="ngram")).finish_reason


def test_what_came_before_the_error_is_kept(pair):
    settings = _settings(gamma=0)
    whole = pair.engine.generate(HI, settings)
    at = next(at for at, token in enumerate(whole.token_ids[4:], 4) if token not in whole.token_ids[:at])
    session = pair.engine.session()
    with pair.broken("target", whole.token_ids[at]):
        stream = pair.engine.stream(HI, settings, session)
        rounds = [next(stream) for _ in range(at + 1)]
        with pytest.raises(sd.AnswerError):
            next(stream)
    text = "".join(rnd.text for rnd in rounds)
    assert sd.emitted_ids(rounds) == whole.token_ids[: at + 1] == session.sampled[text]
    assert session.size_bytes == 0


def test_a_margin_of_logits_that_are_not_finite_is_an_error(pair):
    prompt = [{"role": "user", "content": HI}]
    token = pair.engine.generate(prompt, _settings(max_new_tokens=1)).prompt_token_ids[-1]
    with pair.broken("target", token), pytest.raises(sd.AnswerError, match="not finite"):
        pair.engine.margin(prompt, [], _settings())


@pytest.mark.parametrize("model", ["target", "drafter"])
def test_a_pair_with_broken_weights_is_refused_when_it_is_loaded(pair_folders, tmp_path, model):
    folders = dict(zip(("target", "drafter"), pair_folders, strict=True))
    broken = Path(shutil.copytree(folders[model], tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.weight"][0, 0] = math.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    folders[model] = str(broken)
    with pytest.raises(sd.LoadError, match=f"The {model}, {broken}, computes logits that are not finite"):
        sd.Engine.load(**folders, device="cpu")
