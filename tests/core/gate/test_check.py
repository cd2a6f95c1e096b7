"""Specification of the gate: pairs that pass, pairs that are refused, and the words of a refusal."""

import json
import re

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from specdec_core.errors import IncompatiblePairError, PairUncheckableError, SettingsError
from specdec_core.gate.check import check_logit_width, check_pair
from tests.support.gate_reports import CUTTING, LLAMA, check_named, statuses
from tests.support.tiny_tokenizers import SPECIAL, gpt_like, llama_like, write_json, write_model

VOCABULARY, SPECIALS, WIDTH, SIZE = "vocabulary", "special tokens", "logits width", "size"


@pytest.fixture
def target(tmp_path):
    return write_model(tmp_path / "target")


# What is accepted


def test_two_models_with_the_same_files_are_accepted(target, tmp_path):
    report = check_pair(target, write_model(tmp_path / "drafter"))
    assert report.ok
    assert statuses(report) == {}


def test_a_model_may_be_paired_with_itself(target):
    assert check_pair(target, target).ok


def test_the_report_carries_the_targets_tokenizer(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", tokenizer_config={"eos_token": "<|pad|>"})
    report = check_pair(target, drafter)
    assert report.tokenizer.eos_token == "<|end|>"


def test_the_tokenizers_width_is_its_highest_id_plus_one_where_ids_have_holes(tmp_path):
    tokenizer = gpt_like()
    tokenizer["model"]["vocab"]["hole"] = 300
    folder = write_model(tmp_path / "target", tokenizer)
    report = check_pair(folder, folder)
    assert report.tokenizer_width == 301 > len(report.tokenizer)


# 1. Vocabularies


def test_one_other_token_is_refused_with_its_id_and_both_strings(target, tmp_path):
    tokenizer = gpt_like()
    vocabulary = tokenizer["model"]["vocab"]
    # Id 5 is a sign that no merge uses, so the merges stay valid.
    changed = next(piece for piece, number in vocabulary.items() if number == 5)
    vocabulary["zzz"] = vocabulary.pop(changed)
    report = check_pair(target, write_model(tmp_path / "drafter", tokenizer))
    failed = check_named(report, VOCABULARY)
    assert not report.ok
    assert failed.status == "fail"
    assert f"from id 5 on: {changed!r} in the target, 'zzz' in the drafter" in failed.explanation
    assert "1 id stand" in failed.explanation


def test_a_token_that_only_the_drafter_has_is_refused(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][-1] | {"id": 267, "content": "<think>"})
    failed = check_named(check_pair(target, write_model(tmp_path / "drafter", tokenizer)), VOCABULARY)
    assert failed.status == "fail"
    assert "id 267 on: no token in the target, '<think>' in the drafter" in failed.explanation
    assert failed.target_value == "267 tokens; id 267 is no token"


def test_gpt_like_and_llama_like_tokenizers_are_refused_by_vocabulary_and_cutting(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", llama_like(), tokenizer_config=LLAMA)
    failed = statuses(check_pair(target, drafter))
    assert failed[VOCABULARY] == "fail"
    assert failed[CUTTING] == "fail"


def test_a_refusal_says_what_to_choose_instead(target, tmp_path):
    report = check_pair(target, write_model(tmp_path / "drafter", llama_like(), tokenizer_config=LLAMA))
    assert (
        "Choose a drafter that shares the target's tokenizer" in check_named(report, VOCABULARY).explanation
    )


# 3. Special tokens (2, how text is cut: test_tokenizers.py)


def test_another_id_of_a_special_token_is_refused_with_its_role(target, tmp_path):
    tokenizer = gpt_like()
    begin, end, pad = tokenizer["added_tokens"]
    begin["id"], end["id"] = end["id"], begin["id"]
    tokenizer["added_tokens"] = [end, begin, pad]
    failed = statuses(check_pair(target, write_model(tmp_path / "drafter", tokenizer)))
    assert failed == {VOCABULARY: "fail", SPECIALS: "fail"}


@pytest.mark.parametrize("role", ["bos", "eos", "pad"])
def test_another_choice_of_a_special_token_is_a_warning(target, tmp_path, role):
    other = next(
        token for token in SPECIAL if token != {"bos": SPECIAL[0], "eos": SPECIAL[1], "pad": SPECIAL[2]}[role]
    )
    report = check_pair(target, write_model(tmp_path / "drafter", tokenizer_config={f"{role}_token": other}))
    assert report.ok
    assert statuses(report) == {SPECIALS: "warning"}
    assert f"another {role}; the target's" in check_named(report, SPECIALS).explanation


# 4. The logits' width


def test_other_padding_of_the_width_is_refused_with_all_three_numbers_and_the_way_out(target, tmp_path):
    report = check_pair(target, write_model(tmp_path / "drafter", config={"vocab_size": 320}))
    failed = check_named(report, WIDTH)
    assert statuses(report) == {WIDTH: "fail"}
    assert "only the padding of the width differs: 267 logits in the target, 320 in the drafter, 267 ids" in (
        failed.explanation
    )
    assert "--vocab-padding trim" in failed.explanation


def test_other_padding_of_the_width_passes_when_it_is_trimmed(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", config={"vocab_size": 320})
    report = check_pair(target, drafter, vocab_padding="trim")
    assert report.ok
    assert "cut to the tokenizer's 267 ids" in check_named(report, WIDTH).explanation


def test_trimming_does_not_help_where_the_tokenizers_differ(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", llama_like(), tokenizer_config=LLAMA)
    failed = check_named(check_pair(target, drafter, vocab_padding="trim"), WIDTH)
    assert failed.status == "fail"
    assert "would not help" in failed.explanation


@pytest.mark.parametrize("vocab_padding", ["refuse", "trim"])
def test_a_width_below_the_tokenizers_ids_is_refused(target, tmp_path, vocab_padding):
    drafter = write_model(tmp_path / "drafter", config={"vocab_size": 266})
    failed = check_named(check_pair(target, drafter, vocab_padding=vocab_padding), WIDTH)
    assert failed.status == "fail"
    assert "266 logits" in failed.explanation


def test_the_width_of_a_nested_text_model_is_read(target, tmp_path):
    nested = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"model_type": "gemma3_text", "vocab_size": 320},
    }
    report = check_pair(target, write_model(tmp_path / "drafter", config=nested))
    assert check_named(report, WIDTH).drafter_value == "320"


def test_the_loaded_output_layers_are_judged_like_the_configurations():
    with pytest.raises(IncompatiblePairError, match="only the padding") as refusal:
        check_logit_width([267, 320], 267)
    assert refusal.value.report.checks[0].target_value == "267"


def test_loaded_output_layers_may_be_trimmed():
    assert check_logit_width([267, 320], 267, "trim") == 267


def test_a_target_alone_keeps_its_width():
    assert check_logit_width([320], 267) == 320


def test_another_word_for_vocab_padding_is_a_settings_error(target):
    with pytest.raises(SettingsError, match="'refuse' or 'trim', not 'cut'"):
        check_pair(target, target, vocab_padding="cut")


def test_a_width_that_no_config_names_leaves_the_check_open(target, tmp_path):
    folder = write_model(tmp_path / "drafter")
    write_json(folder / "config.json", {"model_type": "vit"})
    report = check_pair(target, folder)
    assert check_named(report, WIDTH).status == "unchecked"
    assert not report.ok


# The kind of model


def test_an_encoder_decoder_is_refused(target, tmp_path):
    config = {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    report = check_pair(target, write_model(tmp_path / "drafter", config=config))
    assert "The drafter is an encoder-decoder" in check_named(report, "model kind").explanation


@pytest.mark.parametrize("architecture", ["LlamaForSequenceClassification", "LlamaModel"])
def test_a_model_without_next_token_logits_is_refused(target, tmp_path, architecture):
    drafter = write_model(tmp_path / "drafter", config={"architectures": [architecture]})
    assert statuses(check_pair(target, drafter)) == {"model kind": "fail"}


def test_a_config_that_names_no_architecture_is_judged_by_its_model_type(target, tmp_path):
    assert check_pair(target, write_model(tmp_path / "drafter", config={"architectures": None})).ok


# The size


@pytest.mark.parametrize(("layers", "words"), [(2, "as large as the target"), (3, "larger than the target")])
def test_a_drafter_that_is_not_smaller_is_a_warning(target, tmp_path, layers, words):
    report = check_pair(target, write_model(tmp_path / "drafter", config={"num_hidden_layers": layers}))
    assert report.ok
    assert statuses(report) == {SIZE: "warning"}
    assert words in check_named(report, SIZE).explanation
    assert "answers will be slower than without a drafter" in check_named(report, SIZE).explanation


def test_a_model_paired_with_itself_is_a_warning(target):
    assert statuses(check_pair(target, target)) == {SIZE: "warning"}


def test_the_size_is_the_number_of_parameters(target, tmp_path):
    check = check_named(check_pair(target, write_model(tmp_path / "drafter")), SIZE)
    drafter = LlamaForCausalLM(LlamaConfig.from_pretrained(tmp_path / "drafter"))
    assert check.drafter_value == f"{drafter.num_parameters() / 1e6:.3g} million parameters"


def test_a_model_that_cannot_be_counted_is_no_fault(target, tmp_path):
    check = check_named(check_pair(target, write_model(tmp_path / "d", config={"vocab_size": 10**18})), SIZE)
    assert (check.status, check.drafter_value) == ("pass", "not known")


def test_a_target_alone_has_no_size_to_compare(target):
    assert SIZE not in [check.name for check in check_pair(target, None).checks]


# The report


def test_the_report_starts_with_the_verdict_on_a_compatible_pair(target, tmp_path):
    drafter = write_model(tmp_path / "drafter")
    report = check_pair(target, drafter)
    first = str(report).splitlines()[0]
    assert first == f"Compatible: {drafter} can draft for {target}; {len(report.checks)} checks passed."


def test_the_report_starts_with_the_verdict_on_an_incompatible_pair(target, tmp_path):
    drafter = write_model(tmp_path / "drafter", config={"vocab_size": 320})
    report = check_pair(target, drafter)
    first = str(report).splitlines()[0]
    assert first == (
        f"Incompatible: {drafter} cannot draft for {target}; 1 of {len(report.checks)} checks failed: "
        "logits width."
    )


def test_the_report_on_a_target_alone_names_no_drafter(target, tmp_path):
    assert str(check_pair(target, None)).startswith(f"Supported: {target}; ")
    text = str(check_pair(write_model(tmp_path / "model", config={"vocab_size": 266}), None))
    assert text.startswith(f"Unsupported: {tmp_path / 'model'} cannot be loaded; 1 of ")
    assert re.search(r"FAIL +logits width\n +target +266\n", text)


def test_the_report_shows_both_values_where_they_differ(target, tmp_path):
    text = str(check_pair(target, write_model(tmp_path / "drafter", config={"vocab_size": 320})))
    assert re.search(r"FAIL +logits width\n +target +267\n +drafter +320\n", text)


def test_the_report_as_plain_data_goes_through_json(target):
    report = check_pair(target, target)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["ok"] is True
    assert [check["name"] for check in values["checks"]] == [check.name for check in report.checks]
    assert set(values["checks"][0]) == {"name", "status", "target_value", "drafter_value", "explanation"}


def test_control_characters_in_a_token_do_not_reach_the_terminal(target, tmp_path):
    tokenizer = gpt_like()
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][-1] | {"id": 267, "content": "\x1b[31m"})
    assert "\x1b" not in str(check_pair(target, write_model(tmp_path / "drafter", tokenizer)))


@pytest.mark.parametrize("value", [[None], [3]])
def test_a_value_of_another_kind_is_uncheckable_in_words(tmp_path, value):
    target = write_model(tmp_path / "target", config={"architectures": value})
    drafter = write_model(tmp_path / "drafter")
    with pytest.raises(PairUncheckableError, match=re.escape(str(target))):
        check_pair(target, drafter)
