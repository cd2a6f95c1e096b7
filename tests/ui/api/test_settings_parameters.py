"""Settings as parameters of /chat and /compare."""

import inspect

import gradio as gr
import pytest

import specdec_core as sd
from specdec_ui.api.compare import SETTINGS as COMPARE_SETTINGS, compare_steps
from specdec_ui.api.endpoints import chat_rounds
from specdec_ui.api.settings_parameters import with_settings
from specdec_ui.compare.lanes import LaneChoice
from specdec_ui.state.visitors import Visitor
from tests.support.replay import ReplayEngine, loaded_holder, replay_info

GREEDY = {"temperature": 0, "max_new_tokens": 40}
ONCE = LaneChoice(repeat_s=0.0)


OUT_OF_RANGE = [
    ("max_new_tokens", 0, "from 1 to 2048, not 0"),
    ("max_new_tokens", 5000, "from 1 to 2048, not 5000.*context"),
    ("temperature", -1, "at least 0"),
    ("top_k", -1, "from 0 to"),
    ("top_p", 0, "above 0 and at most 1"),
    ("min_p", 1, "below 1"),
    ("seed", 2**64, "from -9223372036854775808 to"),
    ("gamma", 17, 'from 0 to 16 or "auto"'),
    ("gamma", 2.5, "whole number"),
    ("drafting", "luck", "'model' or 'ngram' or 'both'"),
    ("verification", "hope", "'rejection' or 'coupled'"),
    ("stop", [""], "non-empty strings"),
    ("typical_p", 0, "above 0 and at most 1"),
    ("repetition_penalty", 0, "at least 0.01 and at most 10"),
    ("frequency_penalty", 3, "at least -2 and at most 2"),
    ("presence_penalty", -3, "at least -2 and at most 2"),
    ("alternatives", 21, "from 0 to 20"),
    ("banned_tokens", ["the"], "list of token ids"),
    ("logit_bias", {"the": 1}, "token ids"),
    ("logit_bias", {"5": 1000}, "at most 100"),
    ("thinking", "maybe", "'auto' or 'on' or 'off'"),
]


def echo(text: str, request: gr.Request, settings: dict, again: bool = False):
    """Says it again."""
    yield {"text": text, "settings": settings, "again": again}


def test_each_setting_is_a_parameter_in_the_place_of_settings():
    names = [*inspect.signature(with_settings(echo)).parameters]
    assert names == ["text", "request", *sd.SETTINGS, "again"]


def test_compare_has_every_setting_but_the_way_of_drafting():
    assert {*COMPARE_SETTINGS} == {*sd.SETTINGS} - {"drafting"}


def test_only_what_was_passed_or_has_a_default_is_given():
    endpoint = with_settings(echo, ["seed", "verification"], {"verification": "coupled"})
    assert list(endpoint("Hi", None, seed=7, again=True)) == [
        {"text": "Hi", "settings": {"seed": 7, "verification": "coupled"}, "again": True}
    ]


def test_the_description_explains_each_parameter():
    description = with_settings(echo, ["gamma", "drafting"]).__doc__
    words = '`gamma` is a number or "auto"; `drafting` is model or ngram or both.'
    assert description.startswith(f"Says it again.\n\n{words}\n\nParameters:\n")
    assert f'    gamma: {sd.SETTINGS["gamma"].help} "auto" is allowed too.' in description
    assert "One of model, ngram, both." in description


@pytest.fixture
def holder(engine):
    return loaded_holder(engine)


@pytest.mark.parametrize(("name", "value", "said"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_with_the_parameter_and_its_range(name, value, said):
    replayed = loaded_holder()
    with pytest.raises(sd.SettingsError, match=f"^{name} .*{said}"):
        list(chat_rounds(Visitor(), replayed, "Hi", {name: value}, False))
    if name in COMPARE_SETTINGS:
        with pytest.raises(sd.SettingsError, match=f"^{name} .*{said}"):
            list(compare_steps(Visitor(), replayed, "Hi", {name: value}, LaneChoice()))


def test_a_default_longest_answer_beyond_the_context_is_cut_to_it():
    pair = loaded_holder(ReplayEngine(info=replay_info(context_length=64)))
    assert pair.require().default_settings.max_new_tokens == 64
    assert list(chat_rounds(Visitor(), pair, "Hi", {}, False))


def test_chat_ends_at_a_stop_text(holder):
    *_, whole = chat_rounds(Visitor(), holder, "Once upon", GREEDY, False)
    stop = whole["text"][10:14]
    *_, stopped = chat_rounds(Visitor(), holder, "Once upon", GREEDY | {"stop": [stop]}, False)
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"] == whole["text"][: whole["text"].index(stop)]


def test_compare_ends_both_lanes_at_a_stop_text(holder):
    *_, whole = compare_steps(Visitor(), holder, "Once upon", GREEDY, ONCE)
    stop = whole["result"]["lanes"][0]["text"][10:14]
    *_, done = compare_steps(Visitor(), holder, "Once upon", GREEDY | {"stop": [stop]}, ONCE)
    assert [lane["finish_reason"] for lane in done["result"]["lanes"]] == ["stop", "stop"]
