"""The settings panel follows the declarations of the settings."""

from dataclasses import replace

import gradio as gr
import pytest

import specdec_core as sd
from specdec_ui.parts.settings_panel import CHAT_PANEL, Panel


def created(panel, start=None):
    """The panel's components by field."""
    with gr.Blocks():
        return dict(zip(panel.fields, panel.controls(start or sd.Settings()), strict=True))


class ExtendedSettings:
    """Settings with a field more."""

    added = None


def test_every_setting_with_one_value_has_a_control_with_its_label_and_help():
    controls = created(CHAT_PANEL)
    several = (sd.Texts, sd.TokenIds, sd.TokenNumbers)
    settings = [each for each in sd.SETTINGS.values() if not isinstance(each.values, several)]
    assert {*controls} == {each.name for each in settings} | {"auto_gamma"}
    for setting in settings:
        assert (controls[setting.name].label, controls[setting.name].info) == (setting.label, setting.help)


def test_a_control_takes_no_value_that_the_setting_refuses():
    for name, control in created(CHAT_PANEL).items():
        for end in ("minimum", "maximum"):
            limit = getattr(control, end, None)
            if limit is not None:
                sd.SETTINGS[name].values.check(name, limit)


@pytest.mark.parametrize(
    ("values", "kind"),
    [(sd.Number(0, 1), gr.Number), (sd.WholeNumber(1, 9), gr.Number), (sd.Choice(("a", "b")), gr.Radio)],
)
def test_a_setting_that_the_page_does_not_know_gets_a_control_too(monkeypatch, values, kind):
    added = sd.Setting("added", "Added", "Help of the added one.", values, None)
    monkeypatch.setattr(sd, "SETTINGS", {**sd.SETTINGS, "added": added})
    panel = Panel()
    assert panel.fields == (*CHAT_PANEL.fields, "added")
    control = created(replace(panel, names=("added",)), ExtendedSettings)["added"]
    assert isinstance(control, kind)
    assert (control.label, control.info) == ("Added", "Help of the added one.")


def test_a_panel_of_some_settings_leaves_the_others_as_they_are():
    panel = Panel(("temperature", "seed"), help={"seed": "The same for all lanes."}, low={"temperature": 0.5})
    defaults = sd.Settings(top_k=40, stop=["x"])
    assert panel.settings(defaults, [0.5, 7.0], 2048) == replace(defaults, temperature=0.5, seed=7)
    with pytest.raises(sd.SettingsError, match=r"^Temperature must be at least 0\.5 and at most 2, not 0"):
        panel.settings(defaults, [0, 7.0], 2048)
    controls = created(panel)
    assert controls["seed"].info == "The same for all lanes."
    assert controls["temperature"].minimum == 0.5


def changed(**values):
    """Settings from the chat's panel with some values as a browser sends them."""
    given = dict(zip(CHAT_PANEL.fields, CHAT_PANEL.values(sd.Settings()), strict=True)) | values
    return CHAT_PANEL.settings(sd.Settings(), [*given.values()], context_length=2048)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_new_tokens", 0, "Longest answer must be a whole number from 1 to 2048, not 0."),
        ("max_new_tokens", 2049, "Longest answer must be .* not 2049. The context .* 2,048 tokens."),
        ("max_new_tokens", 3.5, "Longest answer must be a whole number .* not 3.5."),
        ("max_new_tokens", None, "Longest answer is empty."),
        ("gamma", 17, r"Draft length \(gamma\) must be a whole number from 0 to 16, not 17."),
        ("gamma", None, r"Draft length \(gamma\) is empty."),
        ("temperature", 2.5, "Temperature must be at least 0 and at most 2, not 2.5."),
        ("top_p", 0, "Top-p must be at least 0.01 and at most 1, not 0."),
        ("top_k", -1, "Top-k must be a whole number from 0 to"),
        ("min_p", 1, "Min-p must be at least 0 and at most 0.99, not 1."),
        ("seed", -1, "Seed must be a whole number from 0 to 9007199254740991, not -1."),
        ("verification", "hope", "Verification must be 'rejection' or 'coupled'"),
        ("drafting", None, "Who drafts is empty."),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_fields_label_and_range(name, value, said):
    with pytest.raises(sd.SettingsError, match=f"^{said}"):
        changed(**{name: value})


def test_values_at_the_ends_of_the_ranges_are_taken():
    assert changed(max_new_tokens=2048, temperature=2, seed=None).max_new_tokens == 2048
    assert changed(gamma=16, auto_gamma=True).gamma == "auto"


def test_a_default_beyond_a_controls_range_is_taken_as_it_is():
    defaults = sd.Settings(temperature=5.0)
    assert CHAT_PANEL.settings(defaults, CHAT_PANEL.values(defaults), 2048) == defaults
