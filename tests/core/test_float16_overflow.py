"""Activations beyond float16's range: refused by the model's name, with the ways out."""

from dataclasses import replace

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from transformers import AutoModelForCausalLM, PreTrainedModel

import specdec_core as sd
from specdec_core.pair import LoadedPair
from specdec_core.runners import runner_for
from specdec_core.runners.float16 import float16_overflow

HI = "Once upon a time"
SETTINGS = sd.Settings(temperature=0, gamma=2, max_new_tokens=8)


def large_activations(folder: str, dtype: torch.dtype) -> PreTrainedModel:
    """A model whose weights float16 can hold, and whose residual stream grows beyond it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.up_proj.weight.mul_(2000)
            layer.mlp.down_proj.weight.mul_(2000)
    assert all(parameter.abs().max() < 60_000 for parameter in model.parameters())
    return model.to(dtype)


def engine_of(engine: sd.Engine, dtype: torch.dtype, role: str) -> sd.Engine:
    """The pair of `engine` with such a model as its target or drafter."""
    pair: LoadedPair = engine.pair
    folder = pair.target_name if role == "target" else pair.drafter_name
    runner = runner_for(large_activations(folder, dtype), vocab_size=pair.target.vocab_size)
    return sd.Engine(replace(pair, costs={}, **{role: runner}), engine.info)


@pytest.mark.parametrize("role", ["target", "drafter"])
def test_an_overflow_of_float16_is_told_with_the_model_the_range_and_the_ways_out(engine, pair_folders, role):
    half = engine_of(engine, torch.float16, role)
    with pytest.raises(sd.AnswerError) as error:
        half.generate(HI, SETTINGS)
    message = str(error.value)
    assert f"The {role}, {pair_folders[role == 'drafter']}, computes logits that are not finite" in message
    assert "exceed float16's range (±65,504)" in message
    for way_out in ("compute capability 8.0", "device cpu", "quantization none"):
        assert way_out in message


def test_the_overflow_is_found_while_the_pair_is_made_ready(engine):
    with pytest.raises(sd.AnswerError, match="exceed float16's range"):
        engine_of(engine, torch.float16, "target").warm_up()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_weights_answer_in_a_dtype_with_more_range(engine, dtype):
    assert engine_of(engine, dtype, "target").generate(HI, SETTINGS).token_ids


def test_logits_of_infinity_are_an_overflow_too(engine, pair_folders):
    """The last product overflows by itself, after activations that are finite."""
    model = AutoModelForCausalLM.from_pretrained(pair_folders[0], dtype=torch.float16)
    with torch.no_grad():
        model.model.norm.weight.fill_(5000)
        model.get_output_embeddings().weight.normal_(std=100)
    runner = runner_for(model, vocab_size=engine.pair.target.vocab_size)
    logits = runner.prefill(runner.new_cache(), [5, 6, 7])
    assert logits is not None
    assert logits.isinf().any()
    half = sd.Engine(replace(engine.pair, target=runner, costs={}), engine.info)
    with pytest.raises(sd.AnswerError, match="exceed float16's range"):
        half.generate(HI, SETTINGS)


def test_int8_of_bitsandbytes_is_told_as_float16(pair_folders):
    class Linear8bitLt(torch.nn.Linear):
        """The layer of bitsandbytes by its name, which needs a GPU to be made."""

    model = AutoModelForCausalLM.from_pretrained(pair_folders[0], dtype=torch.bfloat16)
    assert float16_overflow(model) is None
    model.model.layers[0].mlp.up_proj = Linear8bitLt(4, 4)
    advice = float16_overflow(model)
    assert advice is not None
    assert "int8 layers in float16" in advice
    assert "quantization none or nf4, or device cpu" in advice


def test_int8_of_a_split_model_is_told_as_float16(pair_folders):
    """accelerate's hooks replace the forward, but not what it computes."""

    class Linear8bitLt(torch.nn.Linear):
        """The layer of bitsandbytes by its name, which needs a GPU to be made."""

    model = AutoModelForCausalLM.from_pretrained(pair_folders[0], dtype=torch.bfloat16)
    layer = Linear8bitLt(4, 4)
    add_hook_to_module(layer, AlignDevicesHook())
    model.model.layers[0].mlp.up_proj = layer
    assert "int8 layers in float16" in (float16_overflow(model) or "")
