"""LoRA adapters in local folders: checked by their base, merged while loading, refused if unusable."""

import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import specdec_core as sd
from specdec_core.loading.memory import memory_need
from specdec_core.loading.weights import ModelSource
from tests.support.tiny_pair import byte_level_tokenizer

peft = pytest.importorskip("peft")

HI = [{"role": "user", "content": "Once upon a time"}]
GREEDY = sd.Settings(max_new_tokens=24, temperature=0, gamma=3)


def save_adapter(base: str, folder: Path, **options) -> str:
    """Save an adapter of random weights, large enough to change the base's answers."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM", **options
    )
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    adapted.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(pair_folders, tmp_path_factory) -> str:
    return save_adapter(pair_folders[0], tmp_path_factory.mktemp("adapter") / "mine")


@pytest.fixture
def copied(adapter, tmp_path) -> Path:
    """The adapter in a folder that a test may change."""
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


def changed(folder: Path, **values) -> str:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return str(folder)


def test_an_adapter_is_merged_and_answers_as_the_model_saved_merged(adapter, pair_folders, tmp_path, engine):
    base, drafter = pair_folders
    merged = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    merged.merge_and_unload().save_pretrained(tmp_path / "merged")
    byte_level_tokenizer().save_pretrained(tmp_path / "merged")
    answers = []
    for target in (adapter, str(tmp_path / "merged")):
        loaded = sd.Engine.load(target=target, drafter=drafter, device="cpu")
        assert loaded.info.target == target
        assert loaded.info.runner == "onnx"
        answers.append(loaded.generate(HI, GREEDY).token_ids)
        loaded.unload()
    assert answers[0] == answers[1]
    assert answers[0] != engine.generate(HI, GREEDY).token_ids


def test_a_drafter_may_be_an_adapter_and_the_answer_stays_the_targets(adapter, pair_folders, engine):
    loaded = sd.Engine.load(target=pair_folders[0], drafter=adapter, device="cpu")
    assert loaded.generate(HI, GREEDY).token_ids == engine.generate(HI, GREEDY).token_ids
    loaded.unload()


def test_a_base_on_the_hub_is_downloaded(on_the_hub, copied, pair_folders):
    target = changed(copied, base_model_name_or_path="owner/target")
    loaded = sd.Engine.load(target=target, drafter=pair_folders[1], device="cpu")
    assert "model.safetensors" in on_the_hub.requested
    loaded.unload()


def test_the_gate_compares_the_base_and_the_adapters_own_tokenizer(copied, pair_folders):
    assert sd.check_pair(str(copied), pair_folders[1]).ok
    byte_level_tokenizer(vocab_size=380).save_pretrained(copied)
    report = sd.check_pair(str(copied), pair_folders[1])
    assert "vocabulary" in [check.name for check in report.checks if check.status == "fail"]


def _no_base(folder: Path) -> str:
    return changed(folder, base_model_name_or_path=None)


def _missing_base(folder: Path) -> str:
    return changed(folder, base_model_name_or_path="/no/such/folder")


def _another_kind(folder: Path) -> str:
    return changed(folder, peft_type="PREFIX_TUNING")


def _pickled(folder: Path) -> str:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    return str(folder)


def _corrupt(folder: Path) -> str:
    (folder / "adapter_model.safetensors").write_bytes(b"not safetensors at all")
    return str(folder)


def _damaged_config(folder: Path) -> str:
    (folder / "adapter_config.json").write_text('{"peft_type": ')
    return str(folder)


def _beside_a_model(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"weights")
    return str(folder)


def _on_itself(folder: Path) -> str:
    return changed(folder, base_model_name_or_path=str(folder))


def _with_more_tokens(folder: Path) -> str:
    file = folder / "adapter_model.safetensors"
    more = {"base_model.model.lm_head.weight": torch.zeros(405, 48)}
    save_file(load_file(file) | more, file)
    return str(folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_no_base, "does not say which model the adapter is for"),
        (_missing_base, "There is no folder /no/such/folder"),
        (_another_kind, "an adapter of type PREFIX_TUNING"),
        (_pickled, "only safetensors are loaded"),
        (_corrupt, r"adapter_model\.safetensors is corrupt"),
        (_damaged_config, r"adapter_config\.json cannot be read"),
        (_beside_a_model, "holds an adapter .* and a whole model"),
        (_on_itself, "is an adapter on another adapter"),
        (_with_more_tokens, "changes the vocabulary of .* from 390 to 405"),
    ],
)
def test_an_adapter_of_no_use_is_refused_by_the_gate_and_by_loading(copied, pair_folders, harm, words):
    target = harm(copied)
    with pytest.raises(sd.PairUncheckableError, match=words):
        sd.check_pair(target, pair_folders[1])
    with pytest.raises(sd.PairUncheckableError, match=words):
        sd.Engine.load(target=target, drafter=pair_folders[1], device="cpu")


def test_an_adapter_of_another_model_is_refused(copied, pair_folders):
    file = copied / "adapter_model.safetensors"
    weights = {name.replace("layers.1", "layers.7"): tensor for name, tensor in load_file(file).items()}
    save_file(weights, file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(sd.LoadError, match="does not fit"):
            sd.Engine.load(target=str(copied), drafter=pair_folders[1], device="cpu")


def test_an_adapter_is_not_merged_into_split_weights(adapter, pair_folders):
    sources = [ModelSource(folder) for folder in pair_folders]
    need = memory_need(sources, torch.device("cpu"), packs=False)
    room = {"cpu": need.total_bytes - 1000}
    with pytest.raises(sd.LoadError, match="cannot be merged into weights that are split"):
        sd.Engine.load(target=adapter, drafter=pair_folders[1], device="auto", max_memory=room)


def test_without_peft_it_is_said_what_to_install(adapter, pair_folders, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "peft" else find_spec(name))
    with pytest.raises(sd.LoadError, match="pip install peft"):
        sd.Engine.load(target=adapter, drafter=pair_folders[1], device="cpu")
