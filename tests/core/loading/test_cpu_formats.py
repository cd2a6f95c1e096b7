"""Weights in 8 and 4 bits on a CPU: loaded, exact, smaller, and refused in words where they cannot be."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

import specdec_core as sd
from specdec_core.bench.noise import with_noisy_drafter
from specdec_core.cli import main
from specdec_core.loading import pair_runners
from specdec_core.runners.onnx.runner import OnnxRunner
from tests.support.tiny_models import tiny_model
from tests.support.tiny_pair import byte_level_tokenizer, save_pair

HI = [{"role": "user", "content": "Once upon a time"}]


def _settings(**changed) -> sd.Settings:
    return sd.Settings(**{"max_new_tokens": 30, "temperature": 0.0, "seed": 4, **changed})


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[str, str]:
    """A pair whose products are all quantized: its widths are multiples of 32."""
    return save_pair(tmp_path_factory.mktemp("wide"), hidden_size=64)


@pytest.fixture(scope="module")
def whole(folders) -> sd.Engine:
    return sd.Engine.load(target=folders[0], drafter=folders[1], device="cpu")


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantized(request, folders) -> sd.Engine:
    target, drafter = folders
    return sd.Engine.load(target=target, drafter=drafter, device="cpu", quantization=request.param)


@pytest.mark.parametrize("changed", [{}, {"temperature": 1.0, "verification": "coupled"}])
def test_drafts_change_no_token_of_the_baseline_s(quantized, changed):
    wanted = quantized.generate(HI, _settings(gamma=0, **changed)).token_ids
    for gamma in (1, 2, 5):
        assert quantized.generate(HI, _settings(gamma=gamma, **changed)).token_ids == wanted


def test_formats_are_named_and_take_less_memory(quantized, whole):
    assert quantized.info.target_quantization == quantized.info.drafter_quantization in ("int8", "int4")
    assert quantized.info.runner == "onnx"
    assert quantized.info.memory_bytes < 0.6 * whole.info.memory_bytes


def test_the_model_s_own_weights_are_freed(quantized):
    kept = sum(p.numel() for p in quantized.pair.target.model.parameters() if not p.is_meta)
    assert kept < 0.05 * quantized.info.target_parameters
    assert not quantized.pair.target.keeps_modules


@pytest.mark.parametrize("peer", ["generate", "assisted"])
def test_lanes_of_transformers_say_that_they_need_the_weights_as_they_were(quantized, peer):
    with pytest.raises(sd.SettingsError, match="Load the pair with quantization none"):
        list(quantized.peer_stream(HI, _settings(), peer=peer))


def test_benches_that_compute_with_the_modules_say_so(folders, capsys):
    pair = ["--target", folders[0], "--drafter", folders[1], "--device", "cpu", "--quantization", "int8"]
    short = ["--repetitions", "1", "--max-new-tokens", "4"]
    for extra in (["--peers"], ["--drafter-noise", "1"]):
        assert main(["bench", *pair, *short, *extra]) == 2
        assert "Load the pair with quantization none" in capsys.readouterr().err


def test_the_drafter_alone_can_be_quantized(folders, whole):
    target, drafter = folders
    mixed = sd.Engine.load(target=target, drafter=drafter, device="cpu", drafter_quantization="int8")
    assert (mixed.info.target_quantization, mixed.info.drafter_quantization) == ("none", "int8")
    assert mixed.generate(HI, _settings()).token_ids == whole.generate(HI, _settings()).token_ids


def test_lanes_of_transformers_compute_a_small_quantized_drafter_with_its_own_weights(folders, whole):
    target, drafter = folders
    mixed = sd.Engine.load(target=target, drafter=drafter, device="cpu", drafter_quantization="int8")
    rounds = list(mixed.peer_stream(HI, _settings(), peer="assisted"))
    assert "".join(rnd.text for rnd in rounds) == whole.generate(HI, _settings()).text


@pytest.fixture
def preset(folders) -> sd.Preset:
    """A preset whose drafter is in 8 bits where that can be."""
    text = {"name": "own", "title": "Own", "description": "Own", "license": "MIT"}
    drafter = {"model": folders[1], "cpu_quantization": "int8"}
    return sd.Preset(target={"model": folders[0]}, drafter=drafter, **text)


def test_a_preset_s_quantization_is_used(preset, whole):
    engine = sd.Engine.load(preset, device="cpu")
    assert (engine.info.drafter_quantization, engine.pair.drafter.weights) == ("int8", "int8")
    assert engine.generate(HI, _settings()).token_ids == whole.generate(HI, _settings()).token_ids


def test_a_preset_s_quantization_that_this_cpu_does_not_compute_is_left_out(preset, whole, monkeypatch):
    """A caller's own is an error there."""
    init = OnnxRunner.__init__

    def without_int8(runner, *arguments, weights="float32", **options):
        if weights == "int8":
            raise RuntimeError("no kernel for 8 bits")
        init(runner, *arguments, weights=weights, **options)

    monkeypatch.setattr(OnnxRunner, "__init__", without_int8)
    engine = sd.Engine.load(preset, device="cpu")
    assert (engine.info.drafter_quantization, engine.pair.drafter.weights) == ("none", "float32")
    assert engine.generate(HI, _settings()).token_ids == whole.generate(HI, _settings()).token_ids
    with pytest.raises(sd.LoadError, match=r"in int8 on this CPU: .*no kernel for 8 bits"):
        sd.Engine.load(preset, device="cpu", drafter_quantization="int8")


def test_a_preset_s_quantization_is_left_out_for_workers_of_a_process_that_computes_nothing(preset):
    engine = sd.Engine.load(preset, device="cpu", for_workers=True)
    assert (engine.info.drafter_quantization, engine.pair.drafter.name) == ("none", "eager")


def test_noise_on_a_quantized_drafter_leaves_its_format(preset):
    noisy = with_noisy_drafter(sd.Engine.load(preset, device="cpu"), 0.1)
    assert noisy.pair.drafter.weights == "int8"
    assert noisy.generate(HI, _settings()).token_ids


def test_a_large_quantized_drafter_gives_its_weights_up(folders, monkeypatch):
    target, drafter = folders
    monkeypatch.setattr(pair_runners, "_SMALL_BYTES", 1000)
    mixed = sd.Engine.load(target=target, drafter=drafter, device="cpu", drafter_quantization="int8")
    assert not mixed.pair.drafter.keeps_modules
    with pytest.raises(sd.SettingsError, match="Load the pair with quantization none"):
        list(mixed.peer_stream(HI, _settings(), peer="assisted"))


def test_each_device_names_the_format_of_the_other(pair_folders):
    with pytest.raises(sd.LoadError, match="nf4 quantization needs a CUDA device"):
        sd.Engine.load(target=pair_folders[0], device="cpu", quantization="nf4")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_without_the_packages_a_quantized_load_says_what_is_missing(pair_folders, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(sd.LoadError, match=f"in int4 on a CPU: {package} is not installed"):
        sd.Engine.load(target=pair_folders[0], device="cpu", quantization="int4")


def _saved(model, folder: Path, tokenizer_from: str) -> str:
    model.save_pretrained(folder)
    for file in Path(tokenizer_from).glob("*token*"):
        shutil.copy(file, folder)
    for file in Path(tokenizer_from).glob("*.jinja"):
        shutil.copy(file, folder)
    return str(folder)


def test_a_family_that_cannot_be_quantized_here_is_refused_before_its_weights_are_read(
    pair_folders, tmp_path
):
    folder = _saved(
        tiny_model("gpt2", vocab_size=len(byte_level_tokenizer())), tmp_path / "model", pair_folders[0]
    )
    (tmp_path / "model" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(sd.LoadError, match="int8 on a CPU: gpt2 is not of the Llama"):
        sd.Engine.load(target=folder, device="cpu", quantization="int8")


def test_heads_of_another_size_are_refused_in_words(pair_folders, tmp_path):
    model = tiny_model("llama", head_dim=8, vocab_size=len(byte_level_tokenizer()))
    folder = _saved(model, tmp_path / "model", pair_folders[0])
    with pytest.raises(sd.LoadError, match="8 dimensions, not a multiple of 16"):
        sd.Engine.load(target=folder, device="cpu", quantization="int8")


def test_a_blocks_width_that_does_not_divide_stays_in_float32(pair_folders, tmp_path):
    model = tiny_model("llama", vocab_size=len(byte_level_tokenizer()), hidden_size=40)
    folder = _saved(model, tmp_path / "model", pair_folders[0])
    odd = sd.Engine.load(target=folder, device="cpu", quantization="int4")
    assert odd.generate(HI, _settings(max_new_tokens=5, gamma=0)).token_ids


def test_a_quantized_target_s_logits_are_near_the_whole_one_s(quantized, whole):
    ids = whole.pair.prompter.encode("Once upon a time there was a little dog")
    rows = []
    for loaded in (whole, quantized):
        runner = loaded.pair.target
        rows.append(runner.forward(runner.new_cache(), torch.tensor(ids)).softmax(-1).clone())
    assert 0 < (rows[0] - rows[1]).abs().sum(-1).mean() / 2 < 0.1
