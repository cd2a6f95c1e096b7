"""Devices of a load: cuDNN's attention, and the dtype by what a GPU can do, wherever it matters."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    Gemma2Config,
    Gemma3Config,
    GemmaConfig,
    Glm4Config,
    LlamaConfig,
    Qwen3Config,
)

import specdec_core as sd
from specdec_core.hub.stored_quantization import StoredQuantization
from specdec_core.loading.devices import dtype_for, resolve_device
from specdec_core.loading.memory import memory_need
from specdec_core.loading.quantization import bitsandbytes_config, stored_config
from specdec_core.loading.weights import ModelSource, Split, skeleton

CPU, CUDA, FIRST, SECOND = (torch.device(name) for name in ("cpu", "cuda", "cuda:0", "cuda:1"))
T4, A100, H100 = (7, 5), (8, 0), (9, 0)
LLAMA = LlamaConfig()


@pytest.fixture
def gpus(monkeypatch):
    """A function that fakes GPUs of the given compute capabilities."""

    def present(*capabilities: tuple[int, int]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])

    return present


@pytest.fixture
def cudnn_attention():
    """torch's switch for cuDNN's attention, on as at the start of a process, and put back afterwards."""
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield torch.backends.cuda.cudnn_sdp_enabled
    torch.backends.cuda.enable_cudnn_sdp(before)


# cuDNN's attention


@pytest.mark.parametrize("name", [None, "auto", "cuda", "cuda:0"])
def test_cudnn_attention_is_off_once_a_cuda_device_is_chosen(gpus, cudnn_attention, name):
    gpus(H100)
    assert resolve_device(name).type == "cuda"
    assert not cudnn_attention()


def test_the_other_fused_kernels_stay_on(gpus, cudnn_attention):
    gpus(H100)
    resolve_device("cuda")
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_a_load_on_the_cpu_leaves_cudnn_attention_as_it_is(gpus, cudnn_attention, pair_folders):
    gpus(H100)
    sd.Engine.load(target=pair_folders[0], device="cpu").unload()
    assert cudnn_attention()


@pytest.mark.parametrize("name", ["cuda", "tpu", "meta"])
def test_a_device_that_is_refused_changes_nothing(gpus, cudnn_attention, name):
    gpus()
    with pytest.raises(sd.LoadError):
        resolve_device(name)
    assert cudnn_attention()


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are(gpus, cudnn_attention):
    gpus(H100, T4)
    assert resolve_device("cuda:1") == SECOND
    with pytest.raises(sd.LoadError, match=r"no device cuda:2 here\. Use cuda:0, cuda:1 or cpu"):
        resolve_device("cuda:2")


# The dtype


@pytest.mark.parametrize(
    ("capability", "config", "dtype"),
    [
        (H100, LlamaConfig(), torch.bfloat16),
        (A100, Gemma3Config(), torch.bfloat16),
        (T4, LlamaConfig(), torch.float16),
        (T4, Qwen3Config(), torch.float16),
        (T4, GemmaConfig(), torch.float16),
        ((7, 0), LlamaConfig(), torch.float16),
        (T4, Gemma2Config(), torch.float32),
        (T4, Gemma3Config(), torch.float32),
        (T4, Gemma3Config().get_text_config(), torch.float32),
        (T4, Glm4Config(), torch.float32),
    ],
)
def test_the_dtype_follows_the_capability_and_the_family(gpus, capability, config, dtype):
    gpus(capability)
    assert dtype_for(config, CUDA) == dtype
    assert dtype_for(config, FIRST) == dtype


def test_the_cpu_computes_in_float32_beside_any_gpu(gpus):
    gpus(T4)
    assert dtype_for(LLAMA, CPU) == torch.float32


def test_of_several_gpus_the_least_capable_decides_unless_one_is_named(gpus):
    gpus(A100, T4)
    assert dtype_for(LLAMA, CUDA) == torch.float16
    assert dtype_for(LLAMA, FIRST) == torch.bfloat16
    assert dtype_for(LLAMA, SECOND) == torch.float16
    assert dtype_for(LLAMA, FIRST, SECOND) == torch.float16


def test_an_estimate_for_cuda_on_a_machine_without_it_is_for_bfloat16(gpus):
    gpus()
    assert dtype_for(LLAMA, CUDA) == torch.bfloat16


@pytest.mark.parametrize(
    ("devices", "computing"),
    [
        ({"a": "cuda:0", "b": "cuda:1", "c": "cpu", "d": "disk"}, [FIRST, SECOND]),
        ({"a": "cpu", "b": "disk"}, [CPU]),
        ({"a": "disk"}, [CPU]),
    ],
)
def test_what_lies_in_memory_or_on_disk_is_computed_on_the_gpus_of_a_split(devices, computing):
    last = computing[-1]
    assert Split(devices, last).computing == computing


# What depends on it


@pytest.mark.parametrize(("capability", "dtype"), [(T4, torch.float16), (H100, torch.bfloat16)])
def test_four_bit_layers_compute_in_the_dtype_of_the_activations(gpus, capability, dtype):
    gpus(capability)
    config = bitsandbytes_config("nf4", dtype_for(LLAMA, CUDA), CUDA)
    assert config is not None
    assert config.bnb_4bit_compute_dtype == dtype


@pytest.mark.parametrize(
    ("values", "device", "compute_dtype"),
    [
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}, CUDA, "float16"),
        ({"load_in_4bit": True}, CUDA, "float16"),
        ({"load_in_4bit": True, "bnb_4bit_compute_dtype": "bfloat16"}, CPU, "bfloat16"),
        ({"load_in_8bit": True}, CUDA, None),
    ],
)
def test_a_stored_compute_dtype_gives_way_on_a_gpu(values, device, compute_dtype):
    stored = StoredQuantization({"quant_method": "bitsandbytes", **values})
    config = stored_config(stored, torch.float16, device)
    assert config.get("bnb_4bit_compute_dtype") == compute_dtype


@pytest.fixture
def folders(tmp_path) -> dict[str, str]:
    """Folders with the configurations of small models, by type."""
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
    for model_type in ("llama", "gemma2"):
        (tmp_path / model_type).mkdir()
        values = json.dumps({"model_type": model_type, **sizes})
        (tmp_path / model_type / "config.json").write_text(values)
    return {folder.name: str(folder) for folder in Path(tmp_path).iterdir()}


def test_the_memory_of_float16_is_that_of_bfloat16(gpus, folders):
    gpus(H100)
    wanted = memory_need([ModelSource(folders["llama"])], CUDA)
    gpus(T4)
    assert memory_need([ModelSource(folders["llama"])], CUDA) == wanted


def test_the_memory_of_a_model_that_needs_float32_is_twice_that_of_bfloat16(gpus, folders):
    source = ModelSource(folders["gemma2"])
    gpus(H100)
    half = memory_need([source], CUDA)
    gpus(T4)
    whole = memory_need([source], CUDA)
    assert skeleton(source, CUDA).dtype == torch.float32
    assert whole.cache_bytes == 2 * half.cache_bytes
    assert whole.working_bytes > half.working_bytes
    assert whole.weights_bytes == pytest.approx(2 * half.weights_bytes, rel=0.001)


def test_a_pair_of_two_dtypes_counts_each_model_in_its_own(gpus, folders):
    sources = [ModelSource(folders[name]) for name in ("gemma2", "llama")]
    gpus(T4)
    both = memory_need(sources, CUDA)
    assert both.weights_bytes == sum(memory_need([source], CUDA).weights_bytes for source in sources)
    assert both.cache_bytes == sum(memory_need([source], CUDA).cache_bytes for source in sources)


def test_the_dtype_of_a_folder_is_read_from_its_configuration(gpus, folders):
    gpus(T4)
    dtypes = [dtype_for(AutoConfig.from_pretrained(folder), CUDA) for folder in folders.values()]
    assert set(dtypes) == {torch.float16, torch.float32}
