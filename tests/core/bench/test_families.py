"""Tiny random models of families, saved and loaded as any model is, against transformers' own generate.

`python -m specdec_core families` does the same for every model type; its table is in docs/models.md.
"""

import pytest

from specdec_core.bench.families import examine, run, table_lines
from specdec_core.cli import main
from specdec_core.errors import SettingsError
from specdec_core.loading import warm_up

PAIRS = {
    "llama": "onnx",
    "qwen2": "onnx",
    "qwen3": "onnx",
    "gemma": "onnx",
    "gemma2": "onnx",
    "bloom": "eager",
    "deepseek_v2": "eager",
    "falcon": "eager",
    "gemma3_text": "onnx",
    "gemma3n_text": "eager",
    "gpt2": "eager",
    "gpt_neox": "eager",
    "gpt_oss": "eager",
    "llama4_text": "eager",
    "mistral": "eager",
    "mixtral": "eager",
    "mpt": "eager",
    "olmo2": "eager",
    "opt": "eager",
    "phi3": "eager",
    "roberta": "eager",
}
ALONE = ["bamba", "doge", "lfm2", "mamba", "minimax", "qwen3_next", "rwkv"]


@pytest.fixture(autouse=True)
def _short_measurement(monkeypatch):
    monkeypatch.setattr(warm_up, "_MEASURED_REPETITIONS", 1)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", PAIRS)
def test_answers_with_and_without_drafts_are_generate_s(model_type, tmp_path):
    result = examine(model_type, tmp_path)
    assert (result.level, result.runner, result.parity) == ("pair", PAIRS[model_type], "equal"), result


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ALONE)
def test_answers_of_a_target_that_takes_no_draft_back_are_generate_s(model_type, tmp_path):
    result = examine(model_type, tmp_path)
    assert (result.level, result.runner, result.parity) == ("alone", "stepwise", "equal"), result


def test_a_refused_type_is_in_the_table_with_its_reason(tmp_path):
    result = examine("xlnet", tmp_path)
    assert result.level == "refused"
    assert "| xlnet | predicts tokens in a permuted order. |" in table_lines([result])


def test_the_command_prints_the_table(capsys):
    assert main(["families", "git"]) == 0
    assert "1 model types, 0 with equal answers" in capsys.readouterr().out


def test_an_unknown_type_is_an_error_that_names_it():
    with pytest.raises(SettingsError, match="no causal language model of type lama"):
        run(["lama"])
