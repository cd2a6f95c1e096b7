"""Verdicts by the configuration alone: paired, alone or refused; the context, the attention."""

import pytest
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    BertConfig,
    BloomConfig,
    GraniteMoeHybridConfig,
    LlamaConfig,
    MptConfig,
)

from specdec_core.runners.positions import UNBOUNDED_CONTEXT, context_length
from specdec_core.runners.serving import attention_for, serving, slides_everywhere, storing_layers

STATEFUL = ["bamba", "falcon_h1", "falcon_mamba", "jamba", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h",
            "qwen3_next", "recurrent_gemma", "rwkv", "xlstm", "zamba", "zamba2"]  # fmt: skip


@pytest.mark.parametrize("model_type", [name for name in STATEFUL if name in CONFIG_MAPPING])
def test_a_state_that_cannot_be_rewound_is_served_alone(model_type):
    verdict = serving(AutoConfig.for_model(model_type))
    assert verdict.level == "alone"
    assert "drafts could not be taken back" in verdict.reason


@pytest.mark.parametrize(
    "model_type", ["llama", "gpt_oss", "bloom", "deepseek_v3", "llama4_text", "gpt_neox"]
)
def test_keys_and_values_alone_are_served_in_pairs(model_type):
    assert serving(AutoConfig.for_model(model_type)).level == "pair"


@pytest.mark.parametrize(
    ("kinds", "level"), [(["full_attention"] * 2, "pair"), (["linear_attention"] * 2, "alone")]
)
def test_the_layers_of_a_hybrid_decide(kinds, level):
    config = GraniteMoeHybridConfig(num_hidden_layers=2, layer_types=kinds)
    assert serving(config).level == level


@pytest.mark.parametrize(("decoder", "level"), [(True, "pair"), (False, "refused")])
def test_an_encoder_is_refused_unless_it_is_a_decoder(decoder, level):
    assert serving(BertConfig(is_decoder=decoder)).level == level


def test_a_flag_that_the_type_does_not_have_decides_nothing():
    assert serving(AutoConfig.for_model("gpt2", is_decoder=False)).level == "pair"
    assert serving(AutoConfig.for_model("gpt_neox", is_decoder=False)).level == "pair"


@pytest.mark.parametrize("model_type", ["t5", "vit"])
def test_a_type_without_a_causal_class_is_refused(model_type):
    verdict = serving(AutoConfig.for_model(model_type))
    assert verdict.level == "refused"
    assert f"model type {model_type}" in verdict.reason


def test_a_number_of_layers_that_no_model_has_is_refused_without_making_them():
    assert serving(LlamaConfig(num_hidden_layers=10**9)).level == "refused"


def test_layers_that_read_another_one_s_keys_store_nothing():
    config = AutoConfig.for_model("gemma3n_text")
    assert sum(storing_layers(config)) == config.num_hidden_layers - config.num_kv_shared_layers


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=100), 100),
        (MptConfig(max_seq_len=300), 300),
        (BloomConfig(), UNBOUNDED_CONTEXT),
        (BloomConfig(seq_length=4096), 4096),
        (AutoConfig.for_model("gpt2", n_positions=77), 77),
        (AutoConfig.for_model("mamba"), UNBOUNDED_CONTEXT),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_the_context_is_what_the_configuration_names_under_any_name(config, length):
    assert context_length(config) == length


@pytest.mark.parametrize(
    ("model_type", "attention"),
    [("llama", "sdpa"), ("gpt_oss", "eager"), ("bloom", "eager"), ("gemma2", "eager")],
)
def test_attention_is_the_one_that_the_class_has(model_type, attention):
    assert attention_for(AutoConfig.for_model(model_type)) == attention


def test_a_window_in_all_layers_is_seen_where_no_layer_names_it():
    assert slides_everywhere(AutoConfig.for_model("mistral"))
    assert not slides_everywhere(LlamaConfig())
    assert not slides_everywhere(AutoConfig.for_model("gemma2"))
