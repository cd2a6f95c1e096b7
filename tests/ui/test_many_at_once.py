"""Ten visitors at once on one pair: each gets an answer of their own, and leaving disturbs no other."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from gradio_client import Client

from specdec_ui.page import build_page, launch_options
from specdec_ui.state.holder import EngineHolder
from specdec_ui.state.presets import Presets
from tests.support.replay import no_progress

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIMIT_S = 90
TOKENS = 40
MESSAGES = [f"Tell me a story about a {thing}." for thing in ("cat", "boat", "fox", "tree", "king")]
GREEDY = {"temperature": 0, "gamma": 4, "max_new_tokens": TOKENS}


@pytest.fixture(scope="module")
def holder():
    holder = EngineHolder()
    holder.load(Presets.read().get("stories"), no_progress)
    return holder


@pytest.fixture(scope="module")
def address(holder):
    page = build_page(holder, Presets.read()).queue(default_concurrency_limit=16)
    _, address, _ = page.launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, **launch_options()
    )
    yield address.rstrip("/")
    page.close(verbose=False)


@pytest.fixture(scope="module")
def clients(address):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: Client(address, verbose=False), range(8)))


def until(holds, what):
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.02)


def messages(job):
    return [step["message"] for step in job.outputs()]


def test_ten_people_at_once_each_get_their_own(page, browser, address, clients, holder):
    talkers, comparers = clients[: len(MESSAGES)], clients[len(MESSAGES) :]
    alone = [
        clients[0].predict(message, new_conversation=True, **GREEDY, api_name="/chat")["text"]
        for message in MESSAGES
    ]
    leaver = browser.new_context()
    try:
        left = leaver.new_page()
        left.set_default_timeout(30_000)
        left.goto(address)
        left.wait_for_selector("#status [data-state=ready]")
        with holder.measuring.enter():
            comparisons = []
            for at, (client, message) in enumerate(zip(comparers, MESSAGES, strict=False), start=1):
                comparisons.append(client.submit(message, **GREEDY, api_name="/compare"))
                until(lambda at=at: len(holder.measuring) == at + 1, f"comparison {at} joins the queue")
            chats = [
                client.submit(message, new_conversation=True, **GREEDY, api_name="/chat")
                for client, message in zip(talkers, MESSAGES, strict=True)
            ]
            page.fill("#message textarea", MESSAGES[0])
            page.click("#send")
            left.fill("#message textarea", MESSAGES[1])
            left.click("#send")
            left.wait_for_selector("#token-view .token")
            leaver.close()
            page.get_by_role("tab", name="Compare").click()
            page.fill("#compare-prompt textarea", MESSAGES[2])
            page.wait_for_selector("#compare-start:enabled")
    finally:
        leaver.close()
    assert [job.result(timeout=LIMIT_S)["text"] for job in chats] == alone
    done = [job.result(timeout=LIMIT_S) for job in comparisons]
    for job, last, message in zip(comparisons, done, MESSAGES, strict=False):
        texts = [each["text"] for each in last["result"]["lanes"]]
        assert texts == [alone[MESSAGES.index(message)]] * 2
        assert last["state"] == "done", messages(job)
    for at, job in enumerate(comparisons, start=1):
        assert any(f"Number {at} in line" in each for each in messages(job))
    page.get_by_role("tab", name="Chat").click()
    page.wait_for_selector("#send:enabled")
    assert page.inner_text("#conversation")
    until(lambda: holder.current.answers == 0, "everybody lets go of the pair")
    assert len(holder.measuring) == 0


def test_one_who_cancels_in_line_lets_the_next_one_up_and_a_page_says_its_place(page, clients, holder):
    before, after = clients[-2:]
    with holder.measuring.enter():
        given_up = before.submit(MESSAGES[0], **GREEDY, api_name="/compare")
        until(lambda: len(holder.measuring) == 2, "the first joins the queue")
        stays = after.submit(MESSAGES[1], **GREEDY, api_name="/compare")
        until(lambda: len(holder.measuring) == 3, "the second joins the queue")
        page.get_by_role("tab", name="Compare").click()
        page.click("#compare-start")
        page.wait_for_selector("#compare-progress:has-text('Number 3 in line')")
        given_up.cancel()
        page.wait_for_selector("#compare-progress:has-text('Number 2 in line')")
        page.click("#compare-cancel")
        page.wait_for_selector("#compare-progress:has-text('Cancelled')")
    assert stays.result(timeout=LIMIT_S)["state"] == "done"
    until(lambda: holder.current.answers == 0, "everybody lets go of the pair")
