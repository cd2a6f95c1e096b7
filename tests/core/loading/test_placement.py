"""Splits of a target: over memory and disk here, over GPUs by the same path on machines with several."""

import gc
import json
import tempfile
from pathlib import Path

import pytest
import torch

import specdec_core as sd
from specdec_core.loading import placement
from specdec_core.loading.memory import memory_need
from specdec_core.loading.placement import MaxMemory, Placement, Spread, plan_placement, room_by_device
from specdec_core.loading.weights import ModelSource, Split
from tests.support.families import FAMILIES, save_family
from tests.support.tiny_pair import save_pair

pytestmark = pytest.mark.slow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HI = [{"role": "user", "content": "Once upon a time"}]


def half_of_the_target(target: str, drafter: str) -> dict[str, int]:
    """A bound on memory that leaves room for all but half of the target's weights."""
    both = memory_need([ModelSource(target), ModelSource(drafter)], CPU, packs=False)
    alone = memory_need([ModelSource(target)], CPU, packs=False)
    return {"cpu": both.total_bytes - alone.weights_bytes + _stored_bytes(target) // 2}


def _stored_bytes(folder: str) -> int:
    return Path(folder, "model.safetensors").stat().st_size


@pytest.fixture
def offload_folders(tmp_path, monkeypatch):
    """A function that lists the offload folders of all loads."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return lambda: list(tmp_path.glob("specdec-offload-*"))


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_target_half_on_disk_answers_as_the_whole_one_and_leaves_no_folder(
    engine, pair_folders, offload_folders, gamma
):
    target, drafter = pair_folders
    split = sd.Engine.load(
        target=target, drafter=drafter, device="auto", max_memory=half_of_the_target(target, drafter)
    )
    assert {"cpu", "disk"} == set(split.pair.target.model.hf_device_map.values())
    assert len(offload_folders()) == 1
    settings = sd.Settings(max_new_tokens=40, temperature=0, gamma=gamma)
    assert split.generate(HI, settings).token_ids == engine.generate(HI, settings).token_ids
    split.unload()
    gc.collect()
    assert offload_folders() == []


@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
def test_windows_and_tied_embeddings_survive_a_split(family, tmp_path, offload_folders):
    target, drafter = save_family(tmp_path, FAMILIES[family])
    whole = sd.Engine.load(target=target, device="cpu")
    room = half_of_the_target(target, drafter)
    split = sd.Engine.load(target=target, drafter=drafter, device="auto", max_memory=room)
    assert "disk" in split.pair.target.model.hf_device_map.values()
    wanted = whole.generate(HI, sd.Settings(max_new_tokens=40, temperature=0, gamma=0)).token_ids
    got = split.generate(HI, sd.Settings(max_new_tokens=40, temperature=0, gamma=3)).token_ids
    assert got == wanted
    whole.unload()
    split.unload()


def test_a_conversation_with_a_split_target_keeps_its_caches(pair_folders, offload_folders):
    target, drafter = pair_folders
    room = half_of_the_target(target, drafter)
    split = sd.Engine.load(target=target, drafter=drafter, device="auto", max_memory=room)
    session, settings = split.session(), sd.Settings(max_new_tokens=12, temperature=0, gamma=3)
    first = split.generate(HI, settings, session)
    messages = [*HI, {"role": "assistant", "content": first.text}, {"role": "user", "content": "more"}]
    assert split.generate(messages, settings, session).stats.cached_prompt_tokens > 0
    split.unload()


def test_the_info_names_the_devices_of_a_split_and_the_reason_for_the_eager_runner(
    pair_folders, offload_folders
):
    target, drafter = pair_folders
    room = half_of_the_target(target, drafter)
    split = sd.Engine.load(target=target, drafter=drafter, device="auto", max_memory=room)
    assert split.info.device == "CPU (target on cpu and disk)"
    assert split.info.runner == "eager"
    assert split.info.runner_reason == "the target's layers lie on cpu and disk"
    split.unload()


def test_a_pair_that_fits_is_not_split(pair_folders):
    whole = sd.Engine.load(target=pair_folders[0], drafter=pair_folders[1], device="auto")
    assert whole.info.device == "CPU"
    assert whole.info.runner == "onnx"
    whole.unload()


def test_a_split_target_that_cannot_be_loaded_leaves_no_folder(tmp_path, offload_folders):
    target, drafter = save_pair(tmp_path / "pair")
    room = half_of_the_target(target, drafter)
    Path(target, "model.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(sd.LoadError, match="corrupt"):
        sd.Engine.load(target=target, drafter=drafter, device="auto", max_memory=room)
    assert offload_folders() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "auto", "max_memory": {"cuda:7": "1GiB"}}, "names 'cuda:7'; the devices here are cpu"),
        ({"device": "auto", "max_memory": {"cpu": "a lot"}}, "a size like 20GiB or 500MB, not 'a lot'"),
        ({"device": "cpu", "max_memory": {"cpu": "1GiB"}}, "give it with device auto"),
    ],
)
def test_an_invalid_bound_on_memory_is_refused(pair_folders, options, message):
    with pytest.raises(sd.SettingsError, match=message):
        sd.Engine.load(target=pair_folders[0], **options)


def test_a_bound_that_leaves_no_room_for_the_drafter_is_refused_with_the_numbers(pair_folders):
    with pytest.raises(sd.LoadError, match=r"would need about .* and 0\.0 MB are free"):
        sd.Engine.load(
            target=pair_folders[0], drafter=pair_folders[1], device="auto", max_memory={"cpu": 1000}
        )


# Placement on several GPUs: the decision alone, from configurations


@pytest.fixture
def gpus(monkeypatch):
    """A function that fakes GPUs with the given free GiB, beside 64 GiB of memory."""

    def present(*free_gib: float) -> None:
        free = {torch.device("cuda", at): int(gib * 2**30) for at, gib in enumerate(free_gib)}
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))
        monkeypatch.setattr(placement, "free_bytes", lambda device: free.get(device, 64 * 2**30))

    return present


@pytest.fixture
def sources(tmp_path) -> list[ModelSource]:
    """A Llama of 8 B drafted by one of 1 B: 16.1 and 2.5 GB in bfloat16."""
    shape = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "num_attention_heads": 32,
             "max_position_embeddings": 8192}  # fmt: skip
    shapes = {
        "target": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32},
        "drafter": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16},
    }
    for name, sizes in shapes.items():
        (tmp_path / name).mkdir()
        tied = {"tie_word_embeddings": name == "drafter"}
        (tmp_path / name / "config.json").write_text(json.dumps(shape | sizes | tied))
    return [ModelSource(str(tmp_path / name)) for name in shapes]


def split_of(sources: list[ModelSource], spread: Spread, max_memory: MaxMemory | None = None) -> Split:
    """The split of a pair that no GPU has room for."""
    split = plan_placement(sources, CUDA, spread, max_memory).split
    assert split is not None
    return split


def modules_by_device(split: Split) -> dict[str, int]:
    return {name: list(split.devices.values()).count(name) for name in dict.fromkeys(split.devices.values())}


def test_one_gpu_with_room_is_used_alone(gpus, sources):
    gpus(24, 24)
    assert plan_placement(sources, CUDA, "gpus") == Placement(torch.device("cuda:0"))


def test_another_gpu_with_room_is_used_alone_rather_than_both(gpus, sources):
    gpus(4, 24)
    assert plan_placement(sources, CUDA, "gpus") == Placement(torch.device("cuda:1"))


def test_two_gpus_share_what_one_cannot_hold_and_the_last_has_the_drafter(gpus, sources):
    gpus(16, 12)
    split = split_of(sources, "gpus")
    assert split.device_names == "cuda:0 and cuda:1"
    assert split.last == torch.device("cuda:1")
    # 12 GiB less head room, caches and drafter: not even half of the 32 layers.
    assert 0 < modules_by_device(split)["cuda:1"] < 16


def test_a_third_gpu_is_left_alone_where_two_are_enough(gpus, sources):
    gpus(16, 12, 17)
    assert split_of(sources, "gpus").device_names == "cuda:0 and cuda:1"


def test_without_auto_nothing_goes_into_memory_or_on_disk(gpus, sources):
    gpus(8, 4)
    with pytest.raises(sd.LoadError, match="With device auto, layers that find no room on the GPUs stay in"):
        plan_placement(sources, CUDA, "gpus")


def test_with_auto_the_rest_goes_into_memory_and_the_drafter_to_the_first_gpu(gpus, sources):
    gpus(8, 4)
    split = split_of(sources, "anywhere")
    assert split.device_names == "cuda:0, cuda:1 and cpu"
    assert split.last == torch.device("cuda:0")


def test_a_bound_on_memory_leaves_the_rest_on_disk(gpus, sources):
    gpus(8, 4)
    split = split_of(sources, "anywhere", {"cuda:0": "7GiB", "cpu": "2GiB"})
    assert split.device_names == "cuda:0, cpu and disk"


def test_quantized_layers_stay_on_gpus(gpus, sources):
    small = [ModelSource(source.model, quantization="nf4") for source in sources]
    gpus(5, 5)
    assert split_of(small, "anywhere").device_names == "cuda:0 and cuda:1"
    gpus(4, 3)
    with pytest.raises(sd.LoadError, match="quantized layers compute nothing that lies in memory"):
        split_of(small, "anywhere")


def test_the_devices_that_may_be_used_are_the_gpus_then_memory(gpus):
    gpus(8, 4)
    assert list(room_by_device(CUDA, "anywhere")) == ["cuda:0", "cuda:1", "cpu"]
    assert list(room_by_device(CUDA, "gpus")) == ["cuda:0", "cuda:1"]
    assert list(room_by_device(CPU, "anywhere")) == ["cpu"]
