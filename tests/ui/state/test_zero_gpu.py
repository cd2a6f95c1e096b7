"""The page on ZeroGPU, over a stub of `spaces` that forks and pickles every call, as the real one does."""

import os
import subprocess
import sys

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from tests.support.chat_page import send, set_number
from tests.support.running_app import ROOT, running_app

pytestmark = pytest.mark.slow

STANDINS = ROOT / "tests" / "support" / "standins"
STORY = {"message": "Tell me a story about a boat.", "seed": 3, "temperature": 0, "api_name": "/chat"}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("zero") / "app.log"


@pytest.fixture(scope="module")
def address(log):
    environment = {
        "SPACES_ZERO_GPU": "true",
        "PYTHONPATH": str(STANDINS),
        "STANDIN_REFUSED_FROM_S": "100",
    }
    with running_app(log, **environment) as url:
        yield url


def ask(address, **arguments):
    return Client(address, verbose=False).predict(**STORY | arguments)


def test_it_answers_and_streams_from_processes_that_get_nothing_but_plain_data(address):
    job = Client(address, verbose=False).submit(**STORY, max_new_tokens=40)
    last = job.result(timeout=120)
    assert len(job.outputs()) > 3
    assert last["finish_reason"] == "length"
    assert last["stats"]["new_tokens"] == 40
    assert last["stats"]["drafted"] > 0


def test_a_follow_up_reads_the_conversation_anew(address):
    client = Client(address, verbose=False)
    first = client.predict(**STORY, max_new_tokens=20)["stats"]
    then = client.predict(**STORY | {"message": "And then?"}, max_new_tokens=20)["stats"]
    assert then["prompt_tokens"] > first["prompt_tokens"] + first["new_tokens"]
    assert then["cached_prompt_tokens"] == 0


def test_the_automatic_draft_length_has_measured_costs(address):
    assert ask(address, max_new_tokens=40, gamma="auto")["stats"]["new_tokens"] == 40


def test_two_visitors_are_answered_at_a_time(address):
    jobs = [Client(address, verbose=False).submit(**STORY, max_new_tokens=30) for _ in range(2)]
    texts = {job.result(timeout=120)["text"] for job in jobs}
    assert len(texts) == 1


def test_a_comparison_measures_both_lanes(address):
    client = Client(address, verbose=False)
    last = client.predict(STORY["message"], max_new_tokens=30, seed=3, api_name="/compare")
    assert last["state"] == "done"
    assert last["result"]["lanes"][1]["same_text"] is True
    assert len(last["result"]["lanes"][1]["predicted_speedup_by_gamma"]) == 9


def test_an_error_of_the_engine_arrives_in_its_own_words(address):
    with pytest.raises(AppError, match="context"):
        ask(address, message="dog " * 25_000)


def test_a_refused_gpu_is_said_with_what_to_do(address):
    with pytest.raises(AppError, match=r"quota exceeded.*Try again later.*Longest answer"):
        ask(address, max_new_tokens=2000)


def test_the_time_asked_for_follows_the_longest_answer_and_measuring_is_paid_once(address, log):
    for _ in range(2):
        ask(address, max_new_tokens=200)
    asked = [line for line in log.read_text().splitlines() if line.startswith("spaces stand-in:")]
    assert asked[-1] == "spaces stand-in: 30 s"
    assert asked.count("spaces stand-in: 40 s") <= 1


def test_no_other_pair_can_be_loaded(address):
    with pytest.raises(AppError, match="fixed"):
        Client(address, verbose=False).predict("stories", api_name="/load_preset")


def test_workers_say_what_one_process_and_transformers_own_generate_say():
    script = """
import sys, threading
from specdec_ui.state import zero_gpu
import specdec_core as sd
engine = zero_gpu.load(sd.list_presets()["stories"], lambda message, fraction: None, threading.Event())
asked = [{"role": "user", "content": "Tell me a story."}]
settings = sd.Settings(max_new_tokens=12, temperature=0)
texts = ["".join(rnd.text for rnd in engine.stream(asked, settings))]
texts.append(engine.engine.generate(asked, settings).text)
for peer in ("generate", "assisted"):
    texts.append("".join(rnd.text for rnd in engine.peer_stream(asked, settings, peer=peer)))
sys.exit(0 if len(set(texts)) == 1 and texts[0] else repr(texts))
"""
    environment = os.environ | {"SPACES_ZERO_GPU": "true", "PYTHONPATH": f"{STANDINS}{os.pathsep}{ROOT}"}
    asked = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr


@pytest.mark.browser
def test_the_page_says_what_runs_and_stop_ends_an_answer(page):
    page.wait_for_selector("#status [data-state=ready]")
    status = page.inner_text("#status")
    assert "ZeroGPU lends a GPU for one answer at a time" in status
    assert page.locator("#load").is_disabled()
    set_number(page, "Longest answer", 1500)
    set_number(page, "Temperature", 2)  # rambles on without an end, with this seed
    set_number(page, "Seed", 7)
    send(page, "Tell me a story about a dog.")
    page.wait_for_function(
        """() => {
            const enough = document.querySelectorAll('#token-view span.token').length >= 8;
            if (enough) document.querySelector('#stop').click();
            return enough;
        }""",
        polling=10,
        timeout=60_000,
    )
    page.wait_for_selector("#send:enabled", timeout=60_000)
    assert "Stopped by you." in page.inner_text("#conversation")
