"""Models whose rotation changes at a length of the context: exact on both sides of the switch."""

import itertools
from functools import cache

import pytest
import torch
import transformers
from packaging.version import Version
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
    PreTrainedModel,
)

from specdec_core.runners import EagerRunner, RopeSwitchRunner, model_runner, rope_switch, runner_for
from specdec_core.runners.positions import rotation_switch

pytestmark = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.24"),
    reason="Phi-3's generate lost the context at the switch",
)

SWITCH = 48
VOCAB = 512
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": None,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": SWITCH,
}


def _phi3(**values) -> PreTrainedModel:
    config = Phi3Config(**SHAPE, original_max_position_embeddings=SWITCH, rope_parameters=LONGROPE, **values)
    return _scaled(Phi3ForCausalLM(config))


def _phimoe() -> PreTrainedModel:
    rope = LONGROPE | {"short_mscale": 1.1, "long_mscale": 1.3}
    config = PhimoeConfig(
        **SHAPE,
        original_max_position_embeddings=SWITCH,
        rope_parameters=rope,
        num_local_experts=2,
        head_dim=16,
    )
    return _scaled(PhimoeForCausalLM(config))


def _llama() -> PreTrainedModel:
    """Its generate goes on with the keys it has when an answer crosses the switch."""
    return _scaled(LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=LONGROPE)))


MODELS = {
    "phi3": _phi3,
    "phimoe": _phimoe,
    "llama": _llama,
    "phi3 with a window": lambda: _phi3(sliding_window=20),
}


@torch.no_grad()
def _scaled(model: PreTrainedModel) -> PreTrainedModel:
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.mul_(8)
    model.generation_config = GenerationConfig(pad_token_id=0)
    return model.eval()


def _prompt(length: int) -> list[int]:
    return torch.randint(1, VOCAB, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def _generated(model: PreTrainedModel, prompt: list[int], tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens)
    return output[0, len(prompt) :].tolist()


@cache
def _answered(name: str, length: int) -> tuple[PreTrainedModel, list[int]]:
    torch.manual_seed(0)
    model = MODELS[name]()
    return model, _generated(model, _prompt(length), 60)


def _decoded(runner, cache, prompt: list[int], answer: list[int], gamma: int) -> list[int]:
    """Greedy decoding with `gamma` drafts a round, of which a varying number is right."""
    got = [int(runner.prefill(cache, prompt[cache.length :])[-1].argmax())]
    right = itertools.cycle(range(gamma + 1))
    while len(got) < len(answer):
        good = next(right)
        drafts = [*answer[len(got) : len(got) + good], *[1] * (gamma - good)][:gamma]
        best = runner.forward(cache, runner.ids([got[-1], *drafts])).argmax(-1).tolist()
        kept = next((at for at, draft in enumerate(drafts) if draft != best[at]), len(drafts))
        got += [*drafts[:kept], best[kept]]
        cache.rewind(len(prompt) + len(got) - 1)
    return got[: len(answer)]


@pytest.mark.parametrize("gamma", [0, 4])
@pytest.mark.parametrize("length", [10, SWITCH, SWITCH + 1, 70])
@pytest.mark.parametrize("name", MODELS)
def test_answers_are_generate_s_on_both_sides_of_the_switch(name, length, gamma):
    model, answer = _answered(name, length)
    assert len(set(answer)) >= 20
    runner = runner_for(model)
    assert type(runner) is RopeSwitchRunner
    assert _decoded(runner, runner.new_cache(), _prompt(length), answer, gamma) == answer


@pytest.mark.parametrize("name", MODELS)
def test_follow_ups_and_shorter_prompts_over_one_cache_are_generate_s(name):
    model = MODELS[name]()
    runner = runner_for(model)
    cache = runner.new_cache()
    long, other = _prompt(120), _prompt(90)
    for prompt in (long[:30], long[:60], long[:40], long, long[:20], long[:20] + other):
        shared = next(
            (n for n, (a, b) in enumerate(zip(cache.ids.tolist(), prompt, strict=False)) if a != b), 999
        )
        cache.rewind(min(shared, len(prompt) - 1))
        answer = _generated(model, prompt, 25)
        assert _decoded(runner, cache, prompt, answer, 3) == answer


def test_a_long_prompt_in_chunks_is_rotated_by_the_long_factors_alone(monkeypatch):
    monkeypatch.setattr(rope_switch, "PREFILL_CHUNK", 16)
    model = _phi3()
    runner = runner_for(model)
    answer = _generated(model, _prompt(100), 30)
    assert _decoded(runner, runner.new_cache(), _prompt(100), answer, 2) == answer


def test_a_stopped_prefill_goes_on_where_it_was():
    runner = runner_for(_phi3())
    cache, prompt = runner.new_cache(), _prompt(60)
    assert runner.prefill(cache, prompt, lambda: True) is None
    cache.rewind(len(prompt) - 1)
    got = runner.prefill(cache, prompt[-1:])
    torch.testing.assert_close(got, runner.prefill(runner.new_cache(), prompt))


@pytest.mark.parametrize("original", [256, 300])
def test_a_switch_past_the_context_is_none(original):
    config = Phi3Config(**SHAPE, rope_parameters=LONGROPE | {"original_max_position_embeddings": original})
    assert rotation_switch(config) is None


def test_rope_parameters_by_type_of_layer_are_read():
    config = LlamaConfig(**SHAPE)
    config.rope_parameters = {"full_attention": LONGROPE, "sliding_attention": {"rope_type": "default"}}
    assert rotation_switch(config) == SWITCH


def test_the_context_of_dynamic_scaling_ends_where_its_rotation_would_change():
    dynamic = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}
    model = _scaled(
        LlamaForCausalLM(LlamaConfig(**SHAPE | {"max_position_embeddings": 64}, rope_parameters=dynamic))
    )
    runner = runner_for(model)
    assert type(runner) is EagerRunner
    assert runner.context_length == 64
    assert "would change with every position past its context of 64" in runner.reason
    answer = _generated(model, _prompt(30), 34)
    assert _decoded(runner, runner.new_cache(), _prompt(30), answer, 4) == answer


def test_no_graph_is_captured_of_a_rotation_that_changes(monkeypatch):
    """The choice for a GPU is made before anything is captured."""
    monkeypatch.setattr("specdec_core.runners._graph_runner", lambda *_: pytest.fail("captured"))
    assert "changes after 48 positions" in runner_for(_phi3()).reason
    assert model_runner.ModelRunner.captures is RopeSwitchRunner.captures is False
