"""Weights that are missing or left over: errors that name the first one, and what is harmless."""

import shutil
from pathlib import Path

import pytest
import torch
from transformers import GPTNeoConfig, Llama4Config, LlamaConfig

import specdec_core as sd
from specdec_core.hub.stored_quantization import StoredQuantization
from specdec_core.loading.completeness import require_complete
from specdec_core.loading.weights import ModelSource, load_model
from tests.support.stored_weights import block_fp8, change_config, copy_with_weights, weights_of

CPU = torch.device("cpu")


def refusal(folder) -> str:
    """Return the message of the error that loading the weights raises."""
    with pytest.raises(sd.LoadError) as error:
        load_model(ModelSource(str(folder)), CPU)
    return str(error.value)


def refuse_leftover(name: str, config, stored=None) -> None:
    """Call the check with one weight left over."""
    leftover = {"missing_keys": [], "mismatched_keys": [], "unexpected_keys": {name}}
    require_complete("the model", leftover, config, stored)


def test_a_config_with_fewer_layers_than_the_weights_is_refused(pair_folders, tmp_path):
    folder = Path(shutil.copytree(pair_folders[0], tmp_path / "model"))
    change_config(folder, {"num_hidden_layers": 1, "layer_types": None})
    assert "has 9 weights that its config.json has no place for, the first being model.layers.1." in (
        refusal(folder)
    )


def test_a_config_with_more_layers_than_the_weights_is_refused(pair_folders, tmp_path):
    folder = Path(shutil.copytree(pair_folders[0], tmp_path / "model"))
    change_config(folder, {"num_hidden_layers": 3, "layer_types": None})
    assert "lacks 9 weights that its config.json calls for" in refusal(folder)


def test_a_bias_that_the_config_leaves_out_is_refused(pair_folders, tmp_path):
    bias = {"model.layers.0.self_attn.q_proj.bias": torch.ones(48)}
    folder = copy_with_weights(pair_folders[0], tmp_path / "model", weights_of(pair_folders[0]) | bias)
    assert "the first being model.layers.0.self_attn.q_proj.bias" in refusal(folder)


def test_scales_without_a_quantization_config_are_refused(pair_folders, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    weights = weights_of(pair_folders[0])
    weights[f"{name}_scale_inv"] = block_fp8(weights[name])[1]
    folder = copy_with_weights(pair_folders[0], tmp_path / "model", weights)
    assert f"the first being {name}_scale_inv" in refusal(folder)


def test_constants_that_older_versions_saved_are_no_leftovers(pair_folders, tmp_path):
    constants = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6)}
    folder = copy_with_weights(pair_folders[0], tmp_path / "model", weights_of(pair_folders[0]) | constants)
    assert load_model(ModelSource(str(folder)), CPU).config.num_hidden_layers == 2


@pytest.mark.parametrize(
    "name",
    [
        "transformer.h.0.attn.attention.bias",
        "transformer.h.0.attn.attention.masked_bias",
        "transformer.position_ids",
        "mtp.fc.weight",
        "model.mtp_layers.0.mlp.up_proj.weight",
    ],
)
def test_masks_and_layers_for_later_tokens_are_no_leftovers(name):
    refuse_leftover(name, GPTNeoConfig())


@pytest.mark.parametrize(("layer", "harmless"), [(31, False), (32, True), (33, False), (320, False)])
def test_only_as_many_layers_for_later_tokens_as_the_config_names_are_no_leftovers(layer, harmless):
    config = LlamaConfig(num_hidden_layers=32, num_nextn_predict_layers=1)
    name = f"model.layers.{layer}.mlp.up_proj.weight"
    if harmless:
        refuse_leftover(name, config)
    else:
        with pytest.raises(sd.LoadError, match=name):
            refuse_leftover(name, config)


@pytest.mark.parametrize("name", ["vision_model.patch.weight", "multi_modal_projector.linear.weight"])
def test_an_image_tower_is_left_over_only_of_a_model_with_images(name):
    refuse_leftover(name, Llama4Config())
    with pytest.raises(sd.LoadError, match=name):
        refuse_leftover(name, LlamaConfig())


def test_a_text_layer_of_a_model_with_images_is_a_leftover():
    with pytest.raises(sd.LoadError, match="language_model"):
        refuse_leftover("language_model.model.layers.99.mlp.up_proj.weight", Llama4Config())


def test_scales_of_activations_are_left_over_only_of_a_quantized_model():
    name = "model.layers.0.self_attn.k_proj.input_scale"
    refuse_leftover(name, LlamaConfig(), StoredQuantization({"quant_method": "fp8"}))
    with pytest.raises(sd.LoadError, match=name):
        refuse_leftover(name, LlamaConfig())
