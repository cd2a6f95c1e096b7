"""Presets of the page: those that ship, those of the operator's folder, and broken files."""

import pytest

import specdec_core as sd
from specdec_ui.loading import bar as load_bar
from specdec_ui.state.presets import Presets
from tests.support.mismatched import write_mismatched_preset
from tests.support.replay import replay_preset


def test_those_that_ship_are_offered_beside_ones_own(tmp_path, monkeypatch):
    write_mismatched_preset(tmp_path)
    monkeypatch.setenv("SPECDEC_PRESETS", str(tmp_path))
    presets = Presets.read()
    assert {"llama-3.2", "gemma", "mismatched"} <= set(presets.names())
    assert presets.get("mismatched").title == "Two that do not fit"


def test_a_broken_file_is_named_and_hides_no_other(tmp_path, monkeypatch):
    write_mismatched_preset(tmp_path)
    (tmp_path / "typo.toml").write_text('titel = "x"\n', encoding="utf-8")
    monkeypatch.setenv("SPECDEC_PRESETS", str(tmp_path))
    presets = Presets.read()
    assert "mismatched" in presets.usable
    with pytest.raises(sd.PresetError, match="titel"):
        presets.get("typo")


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(sd.PresetError, match="one of: a, b"):
        Presets({"a": replay_preset("a"), "b": replay_preset("b")}).get("c")


def test_a_gated_preset_links_its_licence_and_names_the_download():
    preset = Presets.read().get("gemma")
    about = load_bar.about(preset, None, 0)
    assert preset.license_page in about
    assert "22.1 GB" in about
