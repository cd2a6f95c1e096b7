"""Weights from GGUF files: transformers' values in transformers' order, and formats kept on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import specdec_core as sd
from specdec_core.hub.gguf_files import read_gguf
from specdec_core.loading.assemble import load_pair
from specdec_core.loading.gguf_weights import GgufWeights
from specdec_core.loading.plan import LoadOptions, plan_pair
from specdec_core.progress import Watch
from tests.support.tiny_gguf import NAMES, gguf_model, save_gguf, write_gguf

Q4_0, Q4_1, Q8_0, Q5_0 = (GGMLQuantizationType[name] for name in ("Q4_0", "Q4_1", "Q8_0", "Q5_0"))
IDS = torch.arange(5, 45)
GREEDY = sd.Settings(temperature=0, gamma=0, max_new_tokens=12)


def logits_of(engine: sd.Engine) -> torch.Tensor:
    runner = engine.pair.target
    return runner.forward(runner.new_cache(), IDS).clone()


def refusal(**options) -> str:
    with pytest.raises(sd.LoadError) as error:
        sd.Engine.load(device="cpu", **options)
    return str(error.value)


@pytest.mark.parametrize("architecture", NAMES)
def test_a_loaded_file_puts_out_the_models_logits(architecture, tmp_path):
    model = gguf_model(architecture)
    write_gguf(tmp_path / "model.gguf", model)
    engine = sd.Engine.load(target=str(tmp_path / "model.gguf"), device="cpu")
    wanted = model(IDS[None]).logits[0]
    torch.testing.assert_close(logits_of(engine), wanted, atol=2e-3, rtol=2e-3)
    assert engine.info.target_quantization == "GGUF, dequantized"


@pytest.mark.parametrize("kind", [Q4_0, Q4_1, Q5_0, Q8_0], ids=lambda kind: kind.name)
def test_quantized_weights_are_those_that_gguf_reads(kind, tmp_path):
    stored = write_gguf(tmp_path / "model.gguf", gguf_model("llama"), kind)
    config = AutoConfig.from_pretrained(read_gguf(str(tmp_path / "model.gguf")).folder)
    weights = GgufWeights(str(tmp_path / "model.gguf")).state(config)
    assert {*weights} == {*stored}
    for name in {*stored} - {n for n in stored if "q_proj" in n or "k_proj" in n}:
        torch.testing.assert_close(weights[name], stored[name], atol=0, rtol=0)


def test_a_file_keeps_its_own_format_on_a_cpu_unless_another_is_asked_for(tmp_path):
    path = save_gguf(tmp_path, kinds={"token_embd": Q8_0, "output.": Q8_0, "": Q4_1})
    own, whole = (sd.Engine.load(target=path, device="cpu", quantization=q) for q in (None, "none"))
    assert own.pair.target.weights == "int4"
    assert whole.pair.target.weights == "float32"
    # The activations are rounded to 8 bits; the weights are the same.
    difference = (logits_of(own) - logits_of(whole)).std() / logits_of(whole).std()
    assert difference < 0.05


def test_an_eager_runner_computes_a_file_s_weights_dequantized(tmp_path):
    path = save_gguf(tmp_path, kinds=Q8_0)
    plan = plan_pair(LoadOptions(target=path, device="cpu"))
    runner = load_pair(plan, Watch(), eager="for the test").pair.target
    assert (runner.name, runner.reason, runner.weights) == ("eager", "for the test", "float32")


def test_matrices_of_more_than_four_bits_stay_in_eight(tmp_path):
    path = save_gguf(tmp_path, kinds={"attn_v": Q8_0, "ffn_down": Q5_0, "token_embd": Q8_0, "": Q4_1})
    assert read_gguf(path).bits == 4
    finer = read_gguf(path).finer
    assert "model.layers.1.self_attn.v_proj" in finer
    assert "model.layers.0.mlp.down_proj" in finer
    assert "model.layers.0.mlp.up_proj" not in finer
    engine = sd.Engine.load(target=path, device="cpu")
    codes = {name for name in engine.pair.target.graph.weights if name.endswith(".codes")}
    bits = {name: engine.pair.target.graph.weights[name].shape[-1] // 16 * 4 for name in codes}
    assert bits["layer.0.down.codes"] == 8
    assert bits["layer.0.output.codes"] == 4


def test_llama_3_factors_of_the_rotation_become_its_configuration(tmp_path):
    model = gguf_model("llama")
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, "rope_theta": 10000.0}
    config = LlamaConfig(**model.config.to_dict() | {"rope_parameters": scaling})
    plain = 1 / 10000.0 ** (torch.arange(0, 16, 2).float() / 16)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    factors = (plain / scaled).numpy()
    write_gguf(tmp_path / "model.gguf", model, rope_factors=factors)
    engine = sd.Engine.load(target=str(tmp_path / "model.gguf"), device="cpu")
    wanted = type(model)(config)
    wanted.load_state_dict(model.state_dict())
    torch.testing.assert_close(logits_of(engine), wanted.eval()(IDS[None]).logits[0], atol=2e-3, rtol=2e-3)


def test_factors_of_another_kind_are_refused(tmp_path):
    write_gguf(tmp_path / "model.gguf", gguf_model("llama"), rope_factors=np.linspace(1, 5, 8))
    assert "rope_freqs.weight" in refusal(target=str(tmp_path / "model.gguf"))


def test_a_missing_weight_is_named(tmp_path):
    path = save_gguf(tmp_path, left_out="blk.1.ffn_up")
    assert "lacks 1 weight" in refusal(target=path)


def test_a_file_that_ends_early_is_told(tmp_path):
    path = Path(save_gguf(tmp_path))
    path.write_bytes(path.read_bytes()[:-5000])
    assert "the file ends before it" in refusal(target=str(path))


def test_two_files_are_a_pair_and_the_gate_judges_them(tmp_path):
    target = save_gguf(tmp_path / "target", kinds=Q8_0)
    drafter = save_gguf(tmp_path / "drafter", kinds=Q4_1)
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    plain = engine.generate("Once upon a", GREEDY)
    drafted = engine.generate("Once upon a", sd.Settings(temperature=0, gamma=3, max_new_tokens=12))
    assert drafted.token_ids == plain.token_ids
    assert engine.pair.gguf == target
    other = save_gguf(tmp_path / "other", further={"tokenizer.ggml.pre": "smollm"})
    report = sd.check_pair(target, other)
    assert [check.name for check in report.checks if check.status == "fail"] == ["how text is cut"]


def test_a_file_drafts_for_a_folder_of_the_same_tokenizer(tmp_path):
    model = gguf_model("llama")
    model.save_pretrained(tmp_path / "target")
    path = save_gguf(tmp_path / "drafter", kinds=Q8_0)
    sd.check_pair(path, None).tokenizer.save_pretrained(tmp_path / "target")
    report = sd.check_pair(tmp_path / "target", path)
    assert report.ok, str(report)
