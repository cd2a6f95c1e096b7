"""Small random pairs of every family that a preset names, through gate, load, three turns and unload.

Padding, system messages and settings are those of the presets.
"""

import gc
import json
import shutil
import weakref
from functools import cache
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core.preset import PresetModel
from specdec_core.presets import get_preset
from specdec_core.text.template_probe import probe_template
from tests.support.families import FAMILIES, save_family

pytestmark = pytest.mark.slow

FAMILY_OF = {
    "llama-3.2": "llama",
    "llama-3.1": "llama",
    "smollm2": "smollm2",
    "gemma": "gemma",
    "gemma-2": "gemma2",
    "qwen2.5": "qwen2",
    "qwen3": "qwen3",
}
SYSTEM = {"role": "system", "content": "Answer like a pirate."}
QUESTIONS = ["Once upon a time?", "And the dog said: 漢字 🙂", "def f(x):\n    return x"]
TURN_ENDS = {"<|eot_id|>", "<|im_end|>", "<end_of_turn>"}
GREEDY = {"max_new_tokens": 24, "temperature": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of target and drafter by family."""
    root = tmp_path_factory.mktemp("families")
    return {name: save_family(root / name, family) for name, family in FAMILIES.items()}


@pytest.fixture(scope="module")
def load(folders):
    """A cached function that loads a preset with its family's small pair in place of its own models."""

    @cache
    def of(name: str) -> sd.Engine:
        target, drafter = folders[FAMILY_OF[name]]
        models = {"target": PresetModel(model=target), "drafter": PresetModel(model=drafter)}
        return sd.Engine.load(get_preset(name).model_copy(update=models), device="cpu")

    return of


def chat(engine: sd.Engine, settings: sd.Settings, first: list[dict[str, str]]) -> list[sd.Result]:
    """Three turns of one conversation."""
    session, messages, results = engine.session(), list(first), []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        results.append(engine.generate(messages, settings, session))
        messages.append({"role": "assistant", "content": results[-1].text})
    return results


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_gate_load_three_turns_unload(preset, folders, load):
    target, drafter = folders[FAMILY_OF[preset]]
    padding = get_preset(preset).vocab_padding
    report = sd.check_pair(target, drafter, vocab_padding=padding)
    assert report.ok, str(report)
    engine = load.__wrapped__(preset)
    weights = weakref.ref(engine.pair.target.model)
    for result in chat(engine, sd.Settings(max_new_tokens=24, temperature=1.0, seed=5, gamma=3), []):
        assert result.finish_reason in ("eos", "length")
        assert max(result.token_ids) < engine.pair.target.vocab_size
    assert result.stats.cached_prompt_tokens > 0
    engine.unload()
    gc.collect()
    assert weights() is None


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_drafts_change_no_turn_of_a_conversation(preset, load):
    engine = load(preset)
    first = [SYSTEM] if get_preset(preset).takes_system_message else []
    plain = chat(engine, sd.Settings(**GREEDY, gamma=0), first)
    drafted = chat(engine, sd.Settings(**GREEDY, gamma=4), first)
    assert [result.token_ids for result in drafted] == [result.token_ids for result in plain]
    assert sum(result.stats.accepted for result in drafted) > 0


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_a_system_message_is_taken_or_refused_as_the_preset_says(preset, load):
    engine = load(preset)
    messages = [SYSTEM, {"role": "user", "content": "Who are you?"}]
    assert engine.info.takes_system_message == get_preset(preset).takes_system_message
    template = probe_template(engine.pair.tokenizer)
    assert template.takes_system_message == engine.info.takes_system_message
    assert template.notes == ()
    if engine.info.takes_system_message:
        ids = engine.generate(messages, sd.Settings(**GREEDY)).prompt_token_ids
        assert SYSTEM["content"] in engine.pair.tokenizer.decode(ids)
    else:
        with pytest.raises(sd.PromptError, match="System role not supported"):
            engine.generate(messages, sd.Settings(**GREEDY))


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_a_prompt_is_what_the_template_makes_of_the_messages(preset, load):
    """No control token twice, none missing: the ids are those of the tokenizer's own template call."""
    engine = load(preset)
    messages = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "A dog."},
        {"role": "user", "content": "Where?"},
    ]
    expected = engine.pair.tokenizer.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=False
    )
    assert engine.generate(messages, sd.Settings(**GREEDY)).prompt_token_ids == expected


@pytest.mark.parametrize("preset", ["gemma", "gemma-2"])
def test_gemma_refuses_roles_that_do_not_alternate(preset, load):
    twice = [{"role": "user", "content": "Who?"}, {"role": "user", "content": "Where?"}]
    with pytest.raises(sd.PromptError, match="roles must alternate"):
        load(preset).generate(twice, sd.Settings(**GREEDY))


def test_qwen3_drops_thinking_before_the_last_question(load):
    engine = load("qwen3")
    messages = [
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": "<think>\nThe sea, the sea.\n</think>\n\nA dog."},
        {"role": "user", "content": "Where?"},
    ]
    prompt = engine.pair.tokenizer.decode(engine.generate(messages, sd.Settings(**GREEDY)).prompt_token_ids)
    assert "A dog." in prompt
    assert "The sea" not in prompt
    assert "<think>" not in prompt


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_control_tokens_that_a_person_types_stay_text(preset, load):
    engine = load(preset)
    control = FAMILIES[FAMILY_OF[preset]].ends[0]
    plain = engine.generate([{"role": "user", "content": "x"}], sd.Settings(**GREEDY)).prompt_token_ids
    typed = engine.generate([{"role": "user", "content": f"x {control}"}], sd.Settings(**GREEDY))
    control_id = engine.pair.tokenizer.convert_tokens_to_ids(control)
    assert typed.prompt_token_ids.count(control_id) == plain.count(control_id)
    assert control in engine.pair.tokenizer.decode(typed.prompt_token_ids)


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_every_token_that_ends_an_answer_is_known(preset, load):
    engine = load(preset)
    ends = FAMILIES[FAMILY_OF[preset]].ends
    assert engine.pair.eos_ids == {engine.pair.tokenizer.convert_tokens_to_ids(token) for token in ends}


@pytest.mark.parametrize("preset", FAMILY_OF)
def test_the_token_that_closes_a_turn_ends_an_answer_even_where_the_configuration_does_not_say_so(
    preset, folders, tmp_path
):
    """As Gemma was first published: its generation config names <eos> alone."""
    target = Path(shutil.copytree(folders[FAMILY_OF[preset]][0], tmp_path / "target"))
    file = target / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 0}))
    engine = sd.Engine.load(target=str(target), device="cpu")
    *_, closes = [token for token in FAMILIES[FAMILY_OF[preset]].ends if token in TURN_ENDS]
    assert engine.pair.eos_ids == {0, engine.pair.tokenizer.convert_tokens_to_ids(closes)}
    engine.unload()


def test_qwen2_5_is_refused_without_its_opt_in_and_no_padded_id_is_ever_sampled(folders, load):
    target, drafter = folders["qwen2"]
    with pytest.raises(sd.IncompatiblePairError, match="padding"):
        sd.Engine.load(target=target, drafter=drafter, device="cpu")
    engine = load("qwen2.5")
    assert engine.pair.target.vocab_size == engine.pair.drafter.vocab_size == len(engine.pair.tokenizer)
