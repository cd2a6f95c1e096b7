"""Weights in a quantized dtype whose scales are missing or misshapen: refused by name, from the headers."""

import shutil
from pathlib import Path

import pytest
import torch

import specdec_core as sd
from specdec_core.hub.stored_quantization import StoredQuantization
from specdec_core.hub.weight_files import StoredTensor
from specdec_core.loading.scales import require_scales
from specdec_core.loading.weights import ModelSource, load_model
from tests.support.stored_weights import change_config, copy_with_weights, save_block_fp8, weights_of

CPU = torch.device("cpu")
NAME = "model.layers.0.mlp.up_proj.weight"
EXPERTS = "model.layers.0.mlp.experts.gate_up_proj"
BLOCKS = {"quant_method": "fp8", "weight_block_size": [32, 32]}
WHOLE = {"quant_method": "fp8", "weight_block_size": None}
UNSAID = {"quant_method": "fp8"}


def refusal(folder: Path) -> str:
    """Return the message of the error that loading the weights raises."""
    with pytest.raises(sd.LoadError) as error:
        load_model(ModelSource(str(folder)), CPU)
    return str(error.value)


def check(values: dict | None, **tensors: tuple[str, tuple[int, ...]]) -> None:
    """Call the check with tensors named by their ending, each a dtype and a shape."""
    headers = {NAME + ending: StoredTensor(*header) for ending, header in tensors.items()}
    require_scales("the model", headers, None if values is None else StoredQuantization(values))


@pytest.fixture
def fp8(pair_folders, tmp_path) -> Path:
    """The small target in blocks of float8."""
    return save_block_fp8(pair_folders[0], tmp_path / "stored")[0]


@pytest.mark.parametrize("kept", [0, 13])
def test_missing_scales_are_counted_and_the_first_one_is_named(fp8, tmp_path, kept):
    weights = weights_of(fp8)
    scales = sorted(name for name in weights if name.endswith("scale_inv"))
    left = {name: weight for name, weight in weights.items() if name not in scales[: len(scales) - kept]}
    message = refusal(copy_with_weights(fp8, tmp_path / "model", left))
    assert (
        f"lacks the scales of {'14 weights' if kept == 0 else '1 weight'}, the first being {scales[0]} of"
        in (message)
    )


def test_scales_cut_to_one_row_are_refused(fp8, tmp_path):
    cut = {name: w[:1] if name.endswith("scale_inv") else w for name, w in weights_of(fp8).items()}
    message = refusal(copy_with_weights(fp8, tmp_path / "model", cut))
    assert "down_proj.weight_scale_inv of" in message
    assert "has the shape (1, 12)" in message
    assert "needs (6, 12), by blocks of (8, 8)" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn])
def test_a_quantized_dtype_without_a_quantization_config_is_refused(pair_folders, tmp_path, dtype):
    weights = weights_of(pair_folders[0])
    weights[NAME] = (weights[NAME] * 10).to(dtype)
    message = refusal(copy_with_weights(pair_folders[0], tmp_path / "model", weights))
    assert f"has 1 weight in a quantized dtype, the first being {NAME} in " in message
    assert "no quantization_config" in message


@pytest.mark.parametrize(
    "name", ["model.position_ids", "transformer.h.0.attn.bias", "transformer.h.0.attn.causal_mask"]
)
@pytest.mark.parametrize("dtype", ["I64", "U8", "BOOL"])
def test_positions_and_masks_are_no_quantized_weights(name, dtype):
    require_scales("the model", {name: StoredTensor(dtype, (1, 1, 64, 64))}, None)


def test_a_bias_of_a_projection_is_no_mask():
    name = "transformer.h.0.attn.c_attn.bias"
    with pytest.raises(sd.LoadError, match=name):
        require_scales("the model", {name: StoredTensor("I8", (96,))}, None)


@pytest.mark.parametrize(
    ("values", "weight", "scales"),
    [
        (BLOCKS, (96, 64), (3, 2)),
        (BLOCKS, (16, 64), (1, 2)),
        (BLOCKS, (16, 16), ()),
        (BLOCKS, (4, 96, 64), (4, 3, 2)),
        (WHOLE, (96, 64), ()),
        (WHOLE, (96, 64), (1,)),
        (WHOLE, (96, 64), (1, 1)),
        (WHOLE, (96, 64), (96, 1)),
        (WHOLE, (4, 96, 64), (4, 1, 1)),
        (UNSAID, (96, 64), ()),
        (UNSAID, (256, 128), (2, 1)),
    ],
)
def test_scales_of_the_shape_that_the_config_implies_are_accepted(values, weight, scales):
    check(values, **{"": ("F8_E4M3", weight), "_scale_inv": ("F32", scales)})


@pytest.mark.parametrize(
    ("values", "weight", "scales"),
    [
        (BLOCKS, (96, 64), (1, 2)),
        (BLOCKS, (96, 64), (3, 1)),
        (BLOCKS, (96, 64), ()),
        (BLOCKS, (96, 64), (2, 3)),
        (BLOCKS, (4, 96, 64), (3, 2)),
        (WHOLE, (96, 64), (3, 2)),
        (WHOLE, (96, 64), (96,)),
        (WHOLE, (4, 96, 64), (1,)),
        (UNSAID, (256, 128), (4, 4)),
    ],
)
def test_scales_of_another_shape_are_refused(values, weight, scales):
    with pytest.raises(sd.LoadError, match="has the shape"):
        check(values, **{"": ("F8_E4M3", weight), "_scale_inv": ("F32", scales)})


def test_experts_in_one_tensor_need_their_scales():
    with pytest.raises(sd.LoadError, match=f"{EXPERTS}_scale_inv"):
        require_scales(
            "the model", {EXPERTS: StoredTensor("F8_E4M3", (4, 96, 64))}, StoredQuantization(BLOCKS)
        )


def test_experts_in_four_bits_have_a_scale_for_32_weights():
    check(BLOCKS, **{"": ("I8", (96, 32)), "_scale_inv": ("F8_E8M0", (96, 2))})
    with pytest.raises(sd.LoadError, match=r"needs \(96, 2\)"):
        check(BLOCKS, **{"": ("I8", (96, 32)), "_scale_inv": ("F8_E8M0", (96, 1))})


def test_a_weight_that_stays_in_floating_point_needs_no_scale():
    check(BLOCKS, **{"": ("BF16", (96, 64))})


@pytest.mark.parametrize("name", ["scale", "qscale_weight", "weight_scale"])
def test_other_names_of_scales_are_known(name):
    scale = StoredTensor("F32", ())
    headers = {NAME: StoredTensor("F8_E4M3", (96, 64)), NAME.removesuffix("weight") + name: scale}
    require_scales("the model", headers, StoredQuantization(WHOLE))


def test_blocks_of_experts_in_mxfp4_need_their_scales():
    stored = StoredQuantization({"quant_method": "mxfp4"})
    headers = {f"{EXPERTS}_blocks": StoredTensor("U8", (4, 96, 2, 16))}
    with pytest.raises(sd.LoadError, match=f"{EXPERTS}_scales"):
        require_scales("the model", headers, stored)
    require_scales("the model", headers | {f"{EXPERTS}_scales": StoredTensor("U8", (4, 96, 2))}, stored)


@pytest.mark.parametrize("bits", ["4", "8"])
def test_bitsandbytes_over_plain_weights_says_to_remove_the_config(pair_folders, tmp_path, bits):
    folder = Path(shutil.copytree(pair_folders[0], tmp_path / "model"))
    values = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
    change_config(folder, {"quantization_config": values})
    message = refusal(folder)
    assert f"says bitsandbytes_{bits}bit, but its weights are not quantized. Remove quantization_config" in (
        message
    )


def test_eight_bits_of_bitsandbytes_need_their_scales():
    values = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    headers = {NAME: StoredTensor("I8", (96, 64)), "lm_head.SCB": StoredTensor("F32", (96,))}
    with pytest.raises(sd.LoadError, match=r"up_proj\.SCB"):
        require_scales("the model", headers, StoredQuantization(values))
