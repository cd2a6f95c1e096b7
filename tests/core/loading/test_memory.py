"""The estimate of a pair's memory, the memory it takes, and errors where there is too little."""

import gc
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from transformers import (
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    PreTrainedModel,
    Qwen3Config,
)

import specdec_core as sd
from specdec_core.loading.memory import (
    container_free_bytes,
    free_bytes,
    memory_need,
    require_memory,
    weights_bytes,
)
from specdec_core.loading.weights import ModelSource, skeleton
from tests.support.measure_memory import measured_apart
from tests.support.tiny_pair import save_pair

pytestmark = pytest.mark.slow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HI = [{"role": "user", "content": "Once upon a time"}]
ROOT = Path(__file__).parents[3]


def _folder(tmp_path, config) -> str:
    config.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def _live_tensors() -> int:
    """Bytes of the parameters of all models that are alive."""
    gc.collect()
    models = [thing for thing in gc.get_objects() if issubclass(type(thing), PreTrainedModel)]
    return sum(p.nbytes for model in models for p in model.parameters() if not p.is_meta)


# The estimate


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["stories", "0.1"])
def test_the_estimate_is_within_15_percent_of_what_a_pair_takes(shape):
    """`python -m tests.support.measure_memory` measures the larger ones."""
    values = measured_apart(shape)
    assert 0.85 < values["estimate"] / values["measured"] < 1.15, values
    # Of a pair as small as stories, the libraries' heaps keep a larger part.
    assert values["unloaded"] < max(0.1 * values["measured"], 20 * 2**20), values


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (LlamaConfig(vocab_size=128256, hidden_size=3072, intermediate_size=8192, num_hidden_layers=28,
                     num_attention_heads=24, num_key_value_heads=8, tie_word_embeddings=True), 3.21e9),
        (GemmaConfig(vocab_size=256000, hidden_size=3072, intermediate_size=24576, num_hidden_layers=28,
                     num_attention_heads=16, num_key_value_heads=16, head_dim=256), 8.54e9),
        (Gemma2Config(vocab_size=256000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=42,
                      num_attention_heads=16, num_key_value_heads=8, head_dim=256), 9.24e9),
        (Qwen3Config(vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36,
                     num_attention_heads=32, num_key_value_heads=8, head_dim=128,
                     tie_word_embeddings=False), 8.19e9),
    ],
    ids=["Llama 3.2 3B", "Gemma 7B", "Gemma 2 9B", "Qwen3 8B"],
)  # fmt: skip
def test_the_parameters_of_known_shapes_are_those_of_their_model_cards(tmp_path, config, parameters):
    model = skeleton(ModelSource(_folder(tmp_path, config)), CUDA)
    assert model.num_parameters() == pytest.approx(parameters, rel=0.005)
    in_bfloat16 = weights_bytes(model, "none")
    assert in_bfloat16 == pytest.approx(2 * parameters, rel=0.005)
    assert weights_bytes(model, "nf4") < weights_bytes(model, "int8") < in_bfloat16


def test_four_bits_take_a_little_more_than_half_a_byte_where_there_are_linear_layers(tmp_path):
    config = LlamaConfig(vocab_size=8, hidden_size=512, intermediate_size=1024, num_hidden_layers=2)
    model = skeleton(ModelSource(_folder(tmp_path, config)), CUDA)
    linear = sum(m.weight.numel() for m in model.model.modules() if isinstance(m, torch.nn.Linear))
    others = sum(p.numel() for p in model.parameters()) - linear
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert weights_bytes(model, "nf4") - 2 * others - buffers == pytest.approx(0.5625 * linear, rel=0.001)


def test_the_cache_is_counted_for_the_pairs_context_where_that_is_short(pair_folders):
    need = memory_need([ModelSource(folder) for folder in pair_folders], CPU)
    assert need.positions == 512
    # Two models, keys and values, 2 layers, 2 heads of 16, float32.
    assert need.cache_bytes == 2 * 2 * 2 * 2 * 16 * 4 * 512


def test_a_skeleton_holds_no_weights(pair_folders):
    model = skeleton(ModelSource(pair_folders[0]), CPU)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


# Free memory


def test_free_memory_is_less_than_all_memory():
    assert 0 < free_bytes(CPU) < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_containers_limit_counts(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 100\n")
    assert container_free_bytes(tmp_path) == 400
    (tmp_path / "memory.max").write_text("max\n")
    assert container_free_bytes(tmp_path) is None


# Pairs that do not fit


def _large_pair(tmp_path) -> tuple[str, str]:
    """Folders that describe models larger than any machine's memory; the weights are not there."""
    paths = save_pair(tmp_path)
    for path in paths:
        Path(path, "model.safetensors").unlink()
        file = Path(path, "config.json")
        values = json.loads(file.read_text())
        values |= {"hidden_size": 2**15, "intermediate_size": 2**17, "num_hidden_layers": 400}
        values.pop("layer_types", None)
        values.pop("head_dim", None)
        file.write_text(json.dumps(values))
    return paths


def test_a_pair_that_does_not_fit_is_refused_with_the_numbers_before_any_download(tmp_path):
    target, drafter = _large_pair(tmp_path)
    with pytest.raises(sd.LoadError) as refusal:
        sd.Engine.load(target=target, drafter=drafter, device="cpu")
    message = str(refusal.value)
    assert f"{target} and {drafter} would need about" in message
    assert "are free. Nothing was downloaded or read." in message
    assert "a smaller pair, or free memory" in message


def test_a_refusal_says_if_the_target_alone_would_fit(tmp_path, pair_folders):
    _, drafter = _large_pair(tmp_path)
    with pytest.raises(sd.LoadError, match="The target alone would fit"):
        require_memory([ModelSource(pair_folders[0]), ModelSource(drafter)], CPU)


def test_a_configuration_that_describes_no_model_is_named(tmp_path, pair_folders):
    target, _ = save_pair(tmp_path)
    file = Path(target, "config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "unheard-of"}))
    with pytest.raises(sd.LoadError, match="describes no model that can be made here"):
        sd.Engine.load(target=target, drafter=pair_folders[1], device="cpu")


# Memory after a failed load


@pytest.mark.parametrize("what", ["corrupt", "incomplete"])
def test_a_drafter_that_cannot_be_loaded_leaves_no_target_in_memory(tmp_path, what):
    target, drafter = save_pair(tmp_path)
    if what == "corrupt":
        Path(drafter, "model.safetensors").write_bytes(b"not safetensors at all")
    else:
        file = Path(drafter, "config.json")
        values = json.loads(file.read_text()) | {"num_hidden_layers": 3}
        values.pop("layer_types", None)
        file.write_text(json.dumps(values))
    before = _live_tensors()
    with pytest.raises(sd.LoadError) as kept:
        sd.Engine.load(target=target, drafter=drafter, device="cpu")
    assert kept.value is not None  # the error is still referenced, as by a page that shows it
    assert _live_tensors() == before


def test_running_out_of_memory_while_loading_is_reported_and_leaves_only_the_pair_before(tmp_path):
    """The process's address space is limited, so that torch's own allocator fails half-way."""
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.stdout.splitlines()[-1:] == ["live 0"], run.stdout + run.stderr[-2000:]
    assert "does not fit into the memory of cpu" in run.stdout
    assert "free memory" in run.stdout
    assert "the pair before serves on: True" in run.stdout


LIMITED = """
import gc, resource, sys
import torch
from tests.support.tiny_pair import byte_level_tokenizer, save_pair
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel
import specdec_core as sd

folder = sys.argv[1]
target, drafter = save_pair(__import__("pathlib").Path(folder))
before = sd.Engine.load(target=target, drafter=drafter, device="cpu")
settings = sd.Settings(max_new_tokens=8, seed=1)
wanted = before.generate("Once", settings).token_ids
big = LlamaForCausalLM(LlamaConfig(vocab_size=400, hidden_size=1024, intermediate_size=4096,
    num_hidden_layers=8, num_attention_heads=8, eos_token_id=3)).to(torch.bfloat16)
big.save_pretrained(folder + "/big")
byte_level_tokenizer().save_pretrained(folder + "/big")
del big
gc.collect()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000, -1))
try:
    sd.Engine.load(target=folder + "/big", drafter=drafter, device="cpu", vocab_padding="trim")
except sd.LoadError as error:
    print(error)
print("the pair before serves on:", before.generate("Once", settings).token_ids == wanted)
before.unload()
gc.collect()
print("live", sum(isinstance(thing, PreTrainedModel) for thing in gc.get_objects()))
"""


def test_changing_the_pair_frees_the_old_one(tmp_path, pair_folders):
    target, drafter = pair_folders
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    one_pair = _live_tensors()
    old = weakref.ref(engine.pair.target.model)
    following = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    assert _live_tensors() > one_pair
    engine.unload()
    assert old() is None
    assert _live_tensors() == one_pair
    following.unload()
