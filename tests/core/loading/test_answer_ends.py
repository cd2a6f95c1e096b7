"""Ends of answers of loaded models: ids that the files name, turn ends and stops. The text is the decode."""

import json
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core.cli import main
from specdec_core.loading.answer_ends import answer_ends
from specdec_core.text.template_probe import TemplateTraits
from tests.support.chain_model import save_chain
from tests.support.tiny_pair import byte_level_tokenizer
from tests.support.tokenizer_families import LLAMA, family

GREEDY = {"temperature": 0, "max_new_tokens": 12}
TURNS = "{% for m in messages %}<|user|>{{ m.content }}<turn_end>{% endfor %}"


@pytest.fixture
def tokenizer():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = None
    tokenizer.add_tokens(["<turn_end>"])
    return tokenizer


def _generate(folder: str, prompt, **settings) -> sd.Result:
    engine = sd.Engine.load(target=folder, drafter=folder, device="cpu")
    return engine.generate(prompt, sd.Settings(**{**GREEDY, "gamma": 0, **settings}))


def _chain(folder: Path, tokenizer, tokens: list[str], **eos) -> str:
    """A model that answers with these tokens over and over."""
    ids = tokenizer.convert_tokens_to_ids(tokens)
    return save_chain(folder, tokenizer, dict(zip(ids, [*ids[1:], ids[0]], strict=True)), ids[0], **eos)


@pytest.mark.parametrize(
    ("named", "ends"),
    [
        ({"generation_eos": "e", "config_eos": "i"}, "e"),
        ({"config_eos": "i"}, "i"),
        ({}, "<|end|>"),
    ],
)
def test_the_generation_config_then_the_config_then_the_tokenizer_names_the_eos(
    tmp_path, tokenizer, named, ends
):
    ids = {key: tokenizer.convert_tokens_to_ids(token) for key, token in named.items()}
    folder = _chain(tmp_path, tokenizer, ["a", "<|end|>", "i", "e"], **ids)
    result = _generate(folder, "Once")
    assert (result.token_ids[-1], result.finish_reason) == (tokenizer.convert_tokens_to_ids(ends), "eos")


def test_the_default_eos_of_an_architecture_ends_nothing_when_no_file_names_it(tmp_path, tokenizer):
    """LlamaConfig's is 2."""
    tokenizer.eos_token = None
    second = tokenizer.convert_ids_to_tokens(2)
    folder = _chain(tmp_path, tokenizer, ["a", second])
    engine = sd.Engine.load(target=folder, drafter=folder, device="cpu")
    settings = sd.Settings(**GREEDY)
    result = engine.generate("Once", settings)
    assert (len(result.token_ids), result.finish_reason) == (12, "length")
    assert 2 in result.token_ids
    for peer in ("generate", "assisted"):
        assert sd.emitted_ids(engine.peer_stream("Once", settings, peer=peer)) == result.token_ids


def test_the_text_part_of_a_multimodal_configuration_names_the_eos(tmp_path, tokenizer):
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"eos_token_id": [3, 4]}}))
    (tmp_path / "generation_config.json").write_text("damaged")
    assert answer_ends(str(tmp_path), tokenizer, TemplateTraits(turn_end=7)) == {3, 4, 7}


def test_a_turn_end_that_is_not_flagged_special_ends_an_answer_and_is_not_shown(tmp_path, tokenizer):
    tokenizer.chat_template = TURNS
    folder = _chain(tmp_path, tokenizer, ["a", "b", "<turn_end>"], config_eos=tokenizer.eos_token_id)
    result = _generate(folder, [{"role": "user", "content": "Once"}])
    assert (result.text, result.finish_reason) == ("ab", "eos")


@pytest.mark.parametrize("gamma", [0, 3])
def test_a_stop_that_is_one_special_token_ends_an_answer(tmp_path, tokenizer, gamma):
    folder = _chain(tmp_path, tokenizer, ["a", "b", "<|user|>"], config_eos=tokenizer.eos_token_id)
    result = _generate(folder, "Once", stop=["<|user|>"], gamma=gamma)
    assert (result.text, result.finish_reason) == ("ab", "stop")


@pytest.mark.parametrize("length", [40, 41, 42])
@pytest.mark.parametrize("gamma", [0, 4])
def test_an_answer_of_byte_tokens_is_the_decode_of_its_ids(tmp_path, gamma, length):
    tokenizer = family(LLAMA)
    fox = [f"<0x{byte:02X}>" for byte in "🦊".encode()]
    folder = _chain(tmp_path, tokenizer, fox)
    result = _generate(folder, "the", max_new_tokens=length, gamma=gamma)
    decoded = tokenizer.decode(result.token_ids)
    assert result.text == decoded
    assert length > 40 or decoded == "🦊" * 10
    emitted = [token.text for rnd in result.rounds for token in rnd.emitted]
    assert "".join(emitted) == "🦊" * 10


@pytest.fixture
def forgetful(tmp_path, tokenizer) -> str:
    """The folder of a model whose chat template has the last message only."""
    tokenizer.chat_template = "{{ messages[-1].content }}"
    return _chain(tmp_path, tokenizer, ["a"])


def test_what_a_template_leaves_out_is_said_by_the_loaded_engine(forgetful):
    (note,) = sd.Engine.load(target=forgetful, device="cpu").info.template_notes
    assert "leaves out the first message" in note


def test_the_command_line_says_what_a_template_leaves_out_of_messages(forgetful, capsys):
    options = ["--target", forgetful, "--device", "cpu", "--gamma", "0", "--max-new-tokens", "2"]
    assert main(["generate", *options, "--message", "Once"]) == 0
    assert "note: The model's chat template leaves out the first message" in capsys.readouterr().err
    assert main(["generate", *options, "--prompt", "Once"]) == 0
    assert "note:" not in capsys.readouterr().err
