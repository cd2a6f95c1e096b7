"""Checkpoints with a quantization of their own: loaded as what they stand for, or refused by name."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    Gemma3Config,
    LlamaConfig,
    LlamaForCausalLM,
)

import specdec_core as sd
from specdec_core.gate.check import check_pair
from specdec_core.hub.stored_quantization import StoredQuantization, stored_quantization
from specdec_core.loading.memory import memory_need
from specdec_core.loading.quantization import require_loadable
from specdec_core.loading.weights import ModelSource, with_stored_quantization
from tests.support.gate_reports import check_named
from tests.support.stored_weights import (
    FP8,
    change_config,
    copy_with_weights,
    save_block_fp8,
    weights_of,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
FORMAT = "weights' format"
PROMPT = "Once upon a time"
GREEDY = sd.Settings(temperature=0, gamma=0, max_new_tokens=24)
BNB4 = {"load_in_4bit": True, "quant_method": "bitsandbytes"}
NEEDS_A_PACKAGE = {
    "gptq": {"bits": 4, "group_size": 128},
    "awq": {"bits": 4, "version": "gemm"},
    "aqlm": {},
    "hqq": {},
    "quanto": {"weights": "int8"},
    "torchao": {"quant_type": "int4_weight_only"},
    "compressed-tensors": {"format": "float-quantized", "config_groups": {}},
    "auto-round": {"bits": 4},
}
"""Formats whose packages the project does not install."""


def ids(folder, settings: sd.Settings = GREEDY, drafter=None) -> list[int]:
    """Return the ids of an answer by a model in a folder."""
    engine = sd.Engine.load(target=str(folder), drafter=drafter and str(drafter), device="cpu")
    answer = engine.generate(PROMPT, settings)
    engine.unload()
    return answer.token_ids


def save_in_four_bits(source, folder: Path) -> Path:
    """Save a model as unsloth's *-bnb-4bit are."""
    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(
        source, quantization_config=settings, device_map={"": "cpu"}, dtype=torch.float32
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bnb4(pair_folders, tmp_path_factory) -> Path:
    """The small target in four bits; its 24 rows of keys are no multiple that AVX512 kernels take."""
    return save_in_four_bits(pair_folders[0], tmp_path_factory.mktemp("small") / "bnb4")


@pytest.fixture(scope="module")
def even_bnb4(pair_folders, tmp_path_factory) -> Path:
    """A model in four bits with shapes that every kernel of bitsandbytes takes."""
    source = tmp_path_factory.mktemp("even") / "float"
    shutil.copytree(pair_folders[0], source)
    shape = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(source, **shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    model.save_pretrained(source)
    return save_in_four_bits(source, source.parent / "bnb4")


@pytest.fixture
def folder(pair_folders, tmp_path) -> Path:
    """A copy of the small target."""
    return Path(shutil.copytree(pair_folders[0], tmp_path / "model"))


# What is honoured


def test_a_block_fp8_checkpoint_answers_as_the_weights_that_it_stands_for(pair_folders, tmp_path):
    quantized, meant = save_block_fp8(pair_folders[0], tmp_path)
    assert ids(quantized) == ids(meant)


def test_an_fp8_checkpoint_is_named_as_dequantized(pair_folders, tmp_path):
    quantized, _ = save_block_fp8(pair_folders[0], tmp_path)
    engine = sd.Engine.load(target=str(quantized), device="cpu")
    assert engine.info.target_quantization == "fp8, dequantized"
    assert engine.info.runner == "onnx"
    assert check_named(check_pair(quantized, quantized), FORMAT).target_value == "fp8, dequantized"


def generated(model, folder: Path) -> list[int]:
    """Return what transformers generates greedily after the prompt."""
    ids = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids
    answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    return answer[0, ids.shape[1] :].tolist()


def test_a_bitsandbytes_checkpoint_answers_as_in_transformers(even_bnb4):
    engine = sd.Engine.load(target=str(even_bnb4), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(even_bnb4, dtype=torch.float32)
    assert engine.generate(PROMPT, GREEDY).token_ids == generated(model, even_bnb4)
    assert (engine.info.target_quantization, engine.info.runner) == ("bitsandbytes_4bit", "eager")


def test_four_bits_of_a_shape_that_is_not_packed_answer_as_the_weights_that_they_stand_for(bnb4):
    engine = sd.Engine.load(target=str(bnb4), device="cpu")
    model = AutoModelForCausalLM.from_pretrained(bnb4, dtype=torch.float32).dequantize().float()
    assert engine.generate(PROMPT, GREEDY).token_ids == generated(model, bnb4)


def test_a_quantized_checkpoint_drafts_for_its_original(bnb4, pair_folders):
    assert ids(pair_folders[0], replace(GREEDY, gamma=3), drafter=bnb4) == ids(pair_folders[0])


def test_the_memory_of_a_checkpoint_in_four_bits_is_that_of_nf4(bnb4, pair_folders):
    stored = with_stored_quantization(ModelSource(str(bnb4)), CPU)
    nf4 = ModelSource(pair_folders[0], quantization="nf4")
    assert memory_need([stored], CPU) == memory_need([nf4], CPU)


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(quantization_config=FP8),
        LlamaConfig(compression_config=FP8),
        Gemma3Config(text_config={"quantization_config": FP8}),
    ],
)
def test_a_quantization_is_found_wherever_a_config_names_it(config):
    assert stored_quantization(config) == StoredQuantization(FP8)


def test_an_empty_quantization_config_stands_for_none(folder, pair_folders):
    change_config(folder, {"quantization_config": {}})
    engine = sd.Engine.load(target=str(folder), device="cpu")
    assert engine.info.target_quantization == "none"
    assert engine.generate(PROMPT, GREEDY).token_ids == ids(pair_folders[0])


def test_outliers_of_eight_bit_weights_have_no_threshold_that_depends_on_later_rows():
    stored = StoredQuantization(
        {"load_in_8bit": True, "quant_method": "bitsandbytes", "llm_int8_threshold": 6.0}
    )
    assert stored.loading_values["llm_int8_threshold"] == 0.0


# What is refused, before any download


@pytest.mark.parametrize("method", NEEDS_A_PACKAGE)
def test_a_format_whose_package_is_missing_is_refused_by_the_gate_with_what_to_install(folder, method):
    change_config(folder, {"quantization_config": NEEDS_A_PACKAGE[method] | {"quant_method": method}})
    failed = check_named(check_pair(folder, folder), FORMAT)
    assert failed.status == "fail"
    assert method in failed.target_value
    assert any(word in failed.explanation for word in ("pip install", "install it"))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"quant_method": "exl2"}, "exl2"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt"),
        ({"bits": 4}, "an unnamed format"),
    ],
)
def test_a_format_that_transformers_does_not_know_is_refused_by_the_gate(folder, values, name):
    change_config(folder, {"quantization_config": values})
    failed = check_named(check_pair(folder, folder), FORMAT)
    assert (failed.status, failed.target_value) == ("fail", name)
    assert "does not know that format" in failed.explanation


@pytest.mark.parametrize("value", ["gptq", [1], 3, True])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_a_quantization_that_is_no_object_is_refused_by_its_key(folder, key, value):
    change_config(folder, {key: value})
    with pytest.raises(sd.PairUncheckableError, match=rf"{key} in config\.json is .*in place of an object"):
        check_pair(folder, folder)


def test_a_checkpoint_of_modelopt_that_says_so_beside_config_json_is_refused(folder):
    (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert check_named(check_pair(folder, folder), FORMAT).target_value == "modelopt"


def test_a_format_for_another_device_is_a_warning_of_the_gate_and_refused_by_loading(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    change_config(folder, {"quantization_config": {"quant_method": "higgs"}})
    assert check_named(check_pair(folder, folder), FORMAT).status == "warning"
    with pytest.raises(sd.LoadError, match="stored in higgs, which cannot be loaded on cpu: HIGGS"):
        sd.Engine.load(target=str(folder), device="cpu")


@pytest.mark.parametrize("method", ["gptq", "exl2", "higgs"])
def test_a_refused_format_costs_no_download(on_the_hub, tmp_path, method):
    served = tmp_path / "served" / "owner" / "drafter"
    change_config(served, {"quantization_config": {"quant_method": method}})
    with pytest.raises((sd.IncompatiblePairError, sd.LoadError), match=method):
        sd.Engine.load(target="owner/target", drafter="owner/drafter", device="cpu")
    assert not [name for name in on_the_hub.requested if name.endswith(".safetensors")]


def test_blocks_that_transformers_would_cut_otherwise_are_refused(pair_folders, tmp_path):
    """48 columns in blocks of 32 have two scales, and would be dequantized as two blocks of 24."""
    quantized, _ = save_block_fp8(pair_folders[0], tmp_path, block=32)
    with pytest.raises(sd.LoadError, match=r"in blocks of \(32, 32\).* no multiple of that"):
        sd.Engine.load(target=str(quantized), device="cpu")


def test_one_plain_weight_among_those_of_bitsandbytes_is_refused(bnb4, pair_folders, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"
    weights = {key: weight for key, weight in weights_of(bnb4).items() if not key.startswith(name)}
    weights[name] = weights_of(pair_folders[0])[name]
    mixed = copy_with_weights(bnb4, tmp_path / "mixed", weights)
    with pytest.raises(sd.LoadError, match=f"says that {name} is quantized by bitsandbytes, but it is not"):
        sd.Engine.load(target=str(mixed), device="cpu")


# A quantization that the caller asks for as well


def test_another_quantization_is_not_added_to_a_stored_one():
    with pytest.raises(sd.LoadError, match="owner/model are stored in fp8; nf4 cannot be added to that"):
        require_loadable("owner/model", LlamaConfig(quantization_config=FP8), "nf4", CUDA)


def test_the_stored_quantization_may_be_asked_for_by_name():
    stored = require_loadable("owner/model", LlamaConfig(quantization_config=BNB4), "nf4", CUDA)
    assert stored == StoredQuantization(BNB4)
