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


def test_every_setting_but_lists_of_texts_has_a_control_with_its_label_and_help():
    controls = created(CHAT_PANEL)
    settings = [each for each in sd.SETTINGS.values() if not isinstance(each.values, sd.Texts)]
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
    assert panel.settings(defaults, [0.5, 7.0]) == replace(defaults, temperature=0.5, seed=7)
    controls = created(panel)
    assert controls["seed"].info == "The same for all lanes."
    assert controls["temperature"].minimum == 0.5
