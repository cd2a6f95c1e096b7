"""The public endpoints, through gradio_client."""

import itertools
import re

import gradio as gr
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

import specdec_core as sd
from specdec_ui.api.compare import SETTINGS
from specdec_ui.page import build_page, launch_options
from specdec_ui.state.holder import EngineHolder
from tests.support.replay import STORY, ReplayEngine, replay_presets

PRESETS = replay_presets("stories", "other")


@pytest.fixture(scope="module")
def url():
    def load(preset, on_progress, cancel):
        on_progress("Loading the target", 0.5)
        return ReplayEngine()

    page = build_page(EngineHolder(load), PRESETS)
    _, address, _ = page.queue(default_concurrency_limit=16).launch(
        prevent_thread_lock=True, quiet=True, **launch_options()
    )
    Client(address, verbose=False).predict("stories", api_name="/load_preset")
    yield address
    page.close()


def test_only_the_documented_endpoints_are_public(url):
    info = Client(url, verbose=False).view_api(return_format="dict", print_info=False)
    assert set(info["named_endpoints"]) == {"/load_preset", "/chat", "/compare", "/check_pair"}
    assert not info["unnamed_endpoints"]


def test_every_parameter_and_result_has_a_name_and_a_label_of_its_own(url):
    endpoints = Client(url, verbose=False).view_api(return_format="dict", print_info=False)["named_endpoints"]
    labels = {
        name: [each["label"] for part in ("parameters", "returns") for each in endpoint[part]]
        for name, endpoint in endpoints.items()
    }
    assert labels["/check_pair"] == [
        *("Target", "Drafter", "Target revision", "Drafter revision", "Vocab padding", "Report")
    ]
    for name, settings in (("/chat", [*sd.SETTINGS]), ("/compare", SETTINGS)):
        assert {sd.SETTINGS[setting].label for setting in settings} <= {*labels[name]}
    assert not [label for all in labels.values() for label in all if re.match(r"\d|param|Component", label)]
    assert [each["parameter_name"] for each in endpoints["/load_preset"]["parameters"]] == ["preset"]


def test_chat_streams_a_round_at_a_time(url):
    job = Client(url, verbose=False).submit("Tell me a story.", api_name="/chat")
    last = job.result()
    steps = job.outputs()
    assert last["text"] == STORY
    assert last["finish_reason"] == "eos"
    assert last["stats"]["acceptance_rate"] > 0
    assert len(steps) > 5
    assert all(after["text"].startswith(before["text"]) for before, after in itertools.pairwise(steps))


def test_settings_left_out_are_the_presets_and_given_ones_count(url):
    client = Client(url, verbose=False)
    assert client.predict("Hi", api_name="/chat")["stats"]["drafted"] > 0
    assert client.predict("Hi", gamma=0, api_name="/chat")["stats"]["drafted"] == 0


@pytest.mark.parametrize(
    ("arguments", "said"), [({"message": " "}, "empty"), ({"message": "Hi", "gamma": -1}, "gamma")]
)
def test_errors_reach_the_client_in_words(url, arguments, said):
    with pytest.raises(AppError, match=said):
        Client(url, verbose=False).predict(**arguments, api_name="/chat")


def test_compare_ends_with_both_lanes_and_the_speedup(url):
    job = Client(url, verbose=False).submit("Tell me a story.", gamma=4, api_name="/compare")
    last = job.result()
    plain, drafted = last["result"]["lanes"]
    assert last["state"] == "done"
    assert (plain["name"], drafted["name"], drafted["same_text"]) == ("plain", "model", True)
    assert 0 < drafted["speedup_low"] <= drafted["speedup"] <= drafted["speedup_high"]
    assert drafted["pairs"] >= 6
    assert plain["speedup_low"] is plain["pairs"] is None
    assert last["result"]["alternated"] is True
    assert len(drafted["predicted_speedup_by_gamma"]) == 9
    assert "tested drafts stood" in last["message"]
    assert {step["state"] for step in job.outputs()[:-1]} <= {"measuring"}


def test_compare_with_gamma_0_says_that_there_is_nothing_to_compare(url):
    with pytest.raises(AppError, match="nothing to compare"):
        Client(url, verbose=False).predict("Hi", gamma=0, api_name="/compare")


def test_an_unknown_preset_is_refused_in_words(url):
    with pytest.raises(AppError, match="no preset"):
        Client(url, verbose=False).predict("nonesuch", api_name="/load_preset")


def test_a_pair_that_cannot_be_checked_is_refused_in_words(url, tmp_path):
    with pytest.raises(AppError):
        Client(url, verbose=False).predict(str(tmp_path), str(tmp_path), api_name="/check_pair")


def test_no_listener_of_the_page_is_callable_by_name():
    page = build_page(EngineHolder(), PRESETS)
    public = [fn for fn in page.fns.values() if fn.api_visibility != "private"]
    assert {fn.api_name for fn in public} == {"load_preset", "chat", "compare", "check_pair"}
    assert isinstance(page, gr.Blocks)
