"""A target whose state cannot be rewound: refused in a pair by its configuration, served alone at gamma 0."""

from pathlib import Path

import pytest
import torch
from transformers import BloomConfig, Lfm2Config, MambaConfig, MptConfig, PreTrainedConfig

import specdec_core as sd
from specdec_core.bench.families import random_model
from specdec_core.loading.memory import memory_need
from specdec_core.loading.weights import ModelSource
from tests.support.tiny_pair import byte_level_tokenizer

SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": None,
}
TURNS = ["Once upon a time", "And then?", "Who was it?"]


def _mamba() -> PreTrainedConfig:
    return MambaConfig(**SIZES, vocab_size=len(byte_level_tokenizer()), state_size=8)


def _lfm2() -> PreTrainedConfig:
    return Lfm2Config(
        **SIZES, vocab_size=len(byte_level_tokenizer()), intermediate_size=96, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, layer_types=["conv", "full_attention"],
    )  # fmt: skip


def _save(config: PreTrainedConfig, folder: Path) -> str:
    config.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=[_mamba, _lfm2], ids=["mamba", "lfm2"])
def model(request):
    return random_model(request.param(), 4.0)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("alone")
    model.save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def engine(folder):
    return sd.Engine.load(target=folder, device="cpu")


@pytest.mark.parametrize("make", [_mamba, _lfm2])
def test_a_pair_is_refused_before_any_weight_is_there(make, tmp_path, pair_folders):
    unfit = _save(make(), tmp_path / "unfit")
    for target, drafter, role in ((unfit, unfit, "target"), (pair_folders[0], unfit, "drafter")):
        with pytest.raises(sd.IncompatiblePairError) as error:
            sd.Engine.load(target=target, drafter=drafter, device="cpu")
        (kind,) = [check for check in error.value.report.checks if check.name == "model kind"]
        assert kind.status == "fail"
        assert f"The {role} " in kind.explanation
        assert "drafts could not be taken back" in kind.explanation


def test_the_gate_passes_it_alone(folder):
    assert sd.check_pair(folder, None).ok


def test_its_own_settings_ask_for_no_drafts(engine):
    assert engine.default_settings.gamma == 0
    assert "drafts could not be taken back" in engine.info.runner_reason


def test_drafts_by_n_grams_are_an_error_with_the_reason(engine):
    with pytest.raises(sd.SettingsError, match=r"gamma must be 0, not 4, .*could not be taken back"):
        engine.generate("Once", sd.Settings(gamma=4, drafting="ngram"))


@pytest.mark.parametrize("drafting", ["model", "ngram", "both"])
def test_gamma_auto_is_plain_decoding(engine, drafting):
    plain = engine.generate("Once", sd.Settings(gamma=0, temperature=0, max_new_tokens=12))
    auto = engine.generate(
        "Once", sd.Settings(gamma="auto", drafting=drafting, temperature=0, max_new_tokens=12)
    )
    assert auto.token_ids == plain.token_ids
    assert auto.stats.drafted == 0


def test_each_follow_up_is_prefilled_anew_and_is_generate_s(engine, model):
    session, messages = engine.session(), []
    for question in TURNS:
        messages.append({"role": "user", "content": question})
        result = engine.generate(messages, sd.Settings(gamma=0, temperature=0, max_new_tokens=30), session)
        messages.append({"role": "assistant", "content": result.text})
        ids = torch.tensor([result.prompt_token_ids])
        mask = torch.ones_like(ids)
        wanted = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=30)
        assert result.token_ids == wanted[0, ids.shape[1] :].tolist()[: len(result.token_ids)]
        assert len(result.token_ids) == 30 or result.finish_reason == "eos"
        assert result.stats.cached_prompt_tokens == 0


def test_memory_is_counted_without_keys_and_values_where_there_are_none(tmp_path):
    source = ModelSource(_save(_mamba(), tmp_path / "mamba"))
    assert memory_need([source], torch.device("cpu")).cache_bytes == 0


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (MptConfig(d_model=64, n_layers=2, n_heads=4, vocab_size=512, max_seq_len=300), 300),
        (BloomConfig(hidden_size=64, n_layer=2, n_head=4, vocab_size=512), 2048),
    ],
    ids=["mpt", "bloom"],
)
def test_memory_is_counted_for_the_context_that_a_configuration_names(config, positions, tmp_path):
    need = memory_need([ModelSource(_save(config, tmp_path / "model"))], torch.device("cpu"))
    assert need.positions == positions
    assert need.cache_bytes == positions * 4 * 2 * 2 * 64
