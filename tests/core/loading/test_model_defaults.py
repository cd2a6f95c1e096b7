"""A model's own settings: values of generation_config.json that become an engine's defaults."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import specdec_core as sd
from specdec_core.cli.commands import main
from specdec_core.loading.model_defaults import model_defaults
from specdec_core.presets import read_preset
from tests.support.tiny_pair import save_pair

OWN = {
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": 0.02,
    "typical_p": 0.9,
    "repetition_penalty": 1.05,
}


@pytest.fixture
def folder(tmp_path) -> Path:
    save_pair(tmp_path)
    return tmp_path


def _write(folder: Path, **values) -> None:
    path = folder / "target" / "generation_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(config | values))


def _load(folder: Path) -> sd.Engine:
    return sd.Engine.load(target=str(folder / "target"), drafter=str(folder / "drafter"), device="cpu")


def test_they_are_an_engine_s_defaults(folder):
    _write(folder, **OWN)
    own = {name: value for name, value in OWN.items() if name != "do_sample"}
    assert _load(folder).default_settings == sd.Settings(gamma="auto", **own)


@pytest.mark.parametrize(
    ("values", "temperature"),
    [
        ({"do_sample": False, "temperature": 0.6}, 0.0),
        ({"do_sample": False}, 0.0),
        ({"do_sample": True}, 0.8),
        ({"temperature": 0.6}, 0.6),
        ({"temperature": None, "do_sample": None}, 0.8),
        ({}, 0.8),
    ],
)
def test_do_sample_false_is_greedy_and_a_missing_one_says_nothing(tmp_path, values, temperature):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert model_defaults(str(tmp_path)).under(sd.Settings(), ()).temperature == temperature


def test_the_drafter_s_do_not_count(folder):
    (folder / "drafter" / "generation_config.json").write_text(json.dumps(OWN))
    assert _load(folder).default_settings == sd.Settings(gamma="auto")


@pytest.mark.parametrize("text", ["", "[1, 2]", "null", "{", "7"])
def test_a_damaged_file_says_nothing(tmp_path, text):
    (tmp_path / "generation_config.json").write_text(text)
    assert model_defaults(str(tmp_path)).under(sd.Settings(), ()) == sd.Settings()


def test_values_out_of_range_are_left_out_and_named(folder, capsys):
    _write(folder, temperature=-1, top_k="many", top_p=0.5, repetition_penalty=0)
    engine = _load(folder)
    assert engine.default_settings == sd.Settings(gamma="auto", top_p=0.5)
    notes = engine.info.settings_notes
    assert len(notes) == 3
    assert any("temperature must be at least 0" in note and "-1" in note for note in notes)
    assert (
        main(["generate", "--target", str(folder / "target"), "--prompt", "a", "--max-new-tokens", "2"]) == 0
    )
    assert "note: The model's generation_config.json is not followed in one value" in capsys.readouterr().err


def test_keys_that_are_not_followed_are_named(folder):
    _write(folder, no_repeat_ngram_size=3, suppress_tokens=[5], num_beams=1, min_length=0, sequence_bias=None)
    (note,) = _load(folder).info.settings_notes
    assert "sets no_repeat_ngram_size, suppress_tokens, which are not followed" in note


def test_what_a_preset_states_comes_first(folder):
    _write(folder, **OWN)
    (folder / "own.toml").write_text(
        'title = "t"\ndescription = "d"\nlicense = "MIT"\n'
        '[target]\nmodel = "./target"\n[drafter]\nmodel = "./drafter"\n'
        "[settings]\ntop_k = 0\ntemperature = 0.3\n"
    )
    preset = read_preset(folder / "own.toml")
    assert preset.chosen_settings == {"top_k", "temperature"}
    settings = sd.Engine.load(preset, device="cpu").default_settings
    assert (settings.top_k, settings.temperature) == (0, 0.3)
    assert (settings.top_p, settings.repetition_penalty, settings.gamma) == (0.95, 1.05, "auto")
    copy = preset.model_copy(update={"settings": sd.Settings(top_p=0.1)})
    assert copy.chosen_settings == preset.chosen_settings


def test_settings_of_a_preset_made_in_python_are_all_its_own():
    preset = sd.list_presets()["stories"]
    own = sd.Preset(**{**preset.model_dump(exclude={"settings"}), "settings": sd.Settings(top_k=3)})
    assert own.chosen_settings == set(sd.SETTINGS)


def test_what_a_person_says_comes_first(folder, capsys):
    _write(folder, do_sample=False, repetition_penalty=1.3)
    pair = ["--target", str(folder / "target"), "--drafter", str(folder / "drafter")]
    ask = ["generate", *pair, "--prompt", "a b a b", "--max-new-tokens", "24", "--json"]

    def ids(*options: str) -> list[int]:
        assert main([*ask, *options]) == 0
        return json.loads(capsys.readouterr().out)["token_ids"]

    engine = _load(folder)
    greedy = sd.Settings(temperature=0.0, max_new_tokens=24)
    penalized = engine.generate("a b a b", replace(greedy, repetition_penalty=1.3)).token_ids
    assert ids() == ids("--gamma", "0") == penalized
    assert ids("--repetition-penalty", "1") == engine.generate("a b a b", greedy).token_ids


def test_the_lane_of_transformers_has_the_same_text(folder):
    _write(folder, do_sample=False, repetition_penalty=1.4)
    engine = _load(folder)
    settings = replace(engine.default_settings, max_new_tokens=24)
    ours = engine.generate("a b a b", settings).text
    for peer in ("generate", "assisted"):
        rounds = engine.peer_stream("a b a b", settings, peer=peer)
        assert "".join(rnd.text for rnd in rounds) == ours
