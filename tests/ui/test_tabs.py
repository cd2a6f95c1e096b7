"""The tabs Compare, Pair check and Traces in Chromium, with the embedded pair."""

import json
import re
import shutil

import pytest

from tests.support.chat_page import settle
from tests.support.running_app import ROOT
from tests.support.tab_page import compare, finished, lane_text, load, open_trace, shorten, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = (
    "<img src=http://other.example/a.png onerror=alert(1)> <script>alert(2)</script> ${alert(3)} {{value}}"
)


def test_one_press_compares_replays_and_explains(page):
    load(page)
    compare(page)
    finished(page)
    assert re.search(r"\d\.\d\d×", page.inner_text("#compare-headline .result-verdict"))
    assert "tested drafts stood" in page.inner_text("#compare-headline")
    assert "Both texts are the same" in page.inner_text("#compare-headline")
    assert page.locator("#compare-charts svg[role=img]").count() == 4
    page.locator(".race-skip").evaluate("button => button.click()")
    assert lane_text(page, 0) == lane_text(page, 1) != ""
    assert page.locator(".race-lane:visible").count() == 2


def test_the_replay_runs_at_the_pace_of_the_decoding(page):
    load(page)
    tab(page, "Compare")
    page.click("#compare-settings button")
    shorten(page, 30)
    compare(page)
    finished(page)
    page.locator(".race-skip").evaluate("button => button.click()")
    clocks = page.locator(".race-lane:visible .race-clock").all_inner_texts()
    seconds = max(float(re.search(r"in ([\d.]+) s", text)[1]) for text in clocks)
    page.select_option(".race-pace", "0.1")
    page.clock.install(time=0)
    page.clock.pause_at(1)
    page.evaluate("document.querySelector('.race-again').click()")
    ended = "document.querySelector('.race-skip').disabled"
    page.clock.run_for(10_000 * seconds - 150)
    assert not page.evaluate(ended)
    page.clock.run_for(300)
    assert page.evaluate(ended)


def test_a_list_of_prompts_gives_a_table_with_mean_and_spread(page):
    load(page)
    tab(page, "Compare")
    page.click("#compare-list button")
    page.fill("#compare-prompts textarea", f"Tell me a story about a dog.\n{HOSTILE}")
    page.click("#compare-start-list")
    page.wait_for_selector("#compare-table :text('2 of 2')", timeout=120_000)
    table = page.inner_text("#compare-table")
    assert "Mean" in table
    assert "Spread" in table
    assert page.locator("#compare-table :is(img, script)").count() == 0


def test_a_comparison_can_be_cancelled_and_the_next_one_runs(page):
    load(page)
    tab(page, "Compare")
    page.click("#compare-list button")
    page.fill("#compare-prompts textarea", "Tell me a story about a dog.\n" * 60)
    page.click("#compare-start-list")
    page.wait_for_selector("#compare-table :text('of 60')", timeout=60_000)
    page.click("#compare-cancel-list")
    page.wait_for_selector("#compare-list-progress:has-text('Cancelled')")
    page.click("#compare-start")
    finished(page)


def test_a_pair_is_checked_and_hostile_names_stay_text(page):
    tab(page, "Pair check")
    page.fill("#pair-target :is(input, textarea)", HOSTILE)
    page.fill("#pair-drafter :is(input, textarea)", "${alert(4)}")
    page.click("#pair-start")
    page.wait_for_selector("#pair-report:has-text('could not be checked')")
    assert page.locator("#pair-report :is(img, script)").count() == 0
    assert "<img src=" in page.inner_text("#pair-report")


def test_a_pair_that_passed_is_loaded_and_answers(page):
    tab(page, "Pair check")
    for role in ("target", "drafter"):
        page.fill(f"#pair-{role} :is(input, textarea)", str(ROOT / "presets" / "stories" / role))
    page.click("#pair-start")
    page.wait_for_selector("#pair-report:has-text('can work together')")
    assert "[target]" in page.input_value("#pair-toml textarea")
    page.click("#pair-load")
    page.wait_for_selector("#status [data-state=ready]:has-text('target drafted by drafter')")
    tab(page, "Chat")
    page.fill("#message textarea", "Tell me a story about a fox.")
    page.click("#send")
    page.wait_for_selector("#token-view .token[data-kind=accepted]")
    page.wait_for_selector("#send:enabled")


def fill_pair(page, folder):
    for role in ("target", "drafter"):
        page.fill(f"#pair-{role} :is(input, textarea)", str(folder / role))


def test_a_result_goes_with_its_fields_and_a_refused_load_is_said_in_sight(page, tmp_path):
    page.set_viewport_size({"width": 1280, "height": 800})
    shutil.copytree(ROOT / "presets" / "stories", tmp_path, dirs_exist_ok=True)
    for weights in tmp_path.rglob("*.safetensors"):
        weights.unlink()
    tab(page, "Pair check")
    for change in (
        lambda: page.fill("#pair-drafter :is(input, textarea)", "another/drafter"),
        lambda: page.fill("#pair-target-revision :is(input, textarea)", "v2"),
        lambda: page.get_by_label("Cut padding off the vocabulary").check(),
    ):
        fill_pair(page, tmp_path)
        page.click("#pair-start")
        page.wait_for_selector("#pair-load:visible")
        change()
        page.wait_for_selector("#pair-load", state="hidden")
        assert page.locator("#pair-report p, #pair-toml").count() == 0
        page.fill("#pair-target-revision :is(input, textarea)", "")
    page.click("#pair-start")
    page.click("#pair-load")
    refusal = page.locator("#pair-progress [role=alert]")
    refusal.wait_for()
    assert "model.safetensors.index.json lists" in refusal.inner_text()
    box = refusal.bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= 800


def test_an_answer_goes_on_while_another_tab_is_looked_at(page):
    load(page)
    page.fill("#message textarea", "Tell me a story about a fox.")
    page.click("#send")
    tab(page, "Compare")
    page.wait_for_selector("#compare-start")
    tab(page, "Chat")
    page.wait_for_selector("#conversation .turn-why")
    page.wait_for_selector("#send:enabled")
    assert page.locator("#token-view .token").count() > 0


def test_a_trace_is_saved_opened_again_and_drawn(page, tmp_path):
    load(page)
    page.fill("#message textarea", "Tell me a story about a fox.")
    page.click("#send")
    page.wait_for_selector("#conversation .turn-why", timeout=120_000)
    page.wait_for_selector("#send:enabled")
    chat = page.locator("#token-view .token").count()
    tab(page, "Traces")
    page.wait_for_selector("#trace-save:enabled")
    saved = {}
    for button, name in (("#trace-save", "a.json"), ("#trace-draw", "a.svg")):
        with page.expect_download() as download:
            page.click(button)
        saved[name] = tmp_path / name
        download.value.save_as(saved[name])
    assert json.loads(saved["a.json"].read_text())["format"] == "specdec-chat-trace"
    assert "<svg" in saved["a.svg"].read_text()
    page.reload()
    page.wait_for_selector("#status [data-state=ready]")
    tab(page, "Traces")
    open_trace(page, saved["a.json"])
    assert page.locator("#trace-view .token").count() == chat
    open_trace(page, saved["a.svg"])
    page.wait_for_selector("#trace-facts:has-text('not JSON')")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_tab_is_wider_than_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 844})
    load(page)
    compare(page)
    finished(page)
    for name in ("Compare", "Pair check", "Traces"):
        tab(page, name)
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
