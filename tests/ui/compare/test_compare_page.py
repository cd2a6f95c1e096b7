"""A person at the Compare tab with the embedded pair: in turns, transformers' lanes, lists from files."""

import re

import pytest

from tests.support.tab_page import finished, lane_text, load, shorten, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LANES = ".race-lane:visible"


def choose(page, *labels):
    tab(page, "Compare")
    page.click("#compare-settings button")
    for label in labels:
        page.get_by_label(label, exact=False).check()


def test_lanes_in_turns_are_seen_as_they_decode_and_can_be_replayed(page):
    load(page)
    tab(page, "Compare")
    page.evaluate(
        """() => {
            const race = document.querySelector('#compare-race');
            const result = document.querySelector('#compare-headline');
            window.grew = 0;
            new MutationObserver(() => {
                const all = [...race.querySelectorAll('.race-lane:not([hidden])')];
                const both = all.length === 2 && all.every(lane => lane.querySelector('.token'));
                if (both && !result.querySelector('.result')) window.grew += 1;
            }).observe(race, {subtree: true, childList: true});
        }"""
    )
    page.click("#compare-start")
    finished(page)
    assert page.evaluate("window.grew") > 2
    verdict = page.inner_text("#compare-headline .result-verdict")
    assert re.match(r"\d\.\d\d×.* \(\d\.\d\d–\d\.\d\d\)", verdict)
    assert "95 % confidence interval" in page.inner_text("#compare-headline")
    assert lane_text(page, 0) == lane_text(page, 1) != ""
    clocks = page.locator(f"{LANES} .race-clock").all_inner_texts()
    assert all(re.fullmatch(r"\d+ tokens in [\d.]+ s", clock) for clock in clocks)
    page.click(".race-again")
    page.wait_for_selector(".race-skip:enabled")


def test_a_comparison_in_turns_can_be_cancelled_and_the_next_one_runs(page):
    load(page)
    tab(page, "Compare")
    page.click("#compare-start")
    page.wait_for_selector("#compare-cancel:enabled")
    page.locator("#compare-cancel").evaluate("button => button.click()")  # the race may have just ended
    page.wait_for_selector("#compare-progress:has-text('Cancelled'), #compare-headline .result")
    page.wait_for_selector("#compare-start:enabled")
    page.click("#compare-start")
    finished(page)


def test_one_after_the_other_both_are_replayed(page):
    load(page)
    tab(page, "Compare")
    page.get_by_label("One after the other, then replay").check()
    page.click("#compare-start")
    finished(page)
    assert "Answered one after the other" in page.inner_text("#compare-headline")
    page.locator(".race-skip").evaluate("button => button.click()")
    assert lane_text(page, 0) == lane_text(page, 1) != ""


def test_on_a_phone_the_lanes_of_transformers_are_timed_and_say_what_they_cannot(page):
    page.set_viewport_size({"width": 390, "height": 844})
    load(page)
    choose(page, "n-gram", "transformers' generate", "transformers' assisted")
    shorten(page, 24)
    page.click("#compare-start")
    finished(page)
    assert page.locator("#compare-headline .result[data-peer]").count() == 2
    assert "How many drafts stood it does not say" in page.inner_text("#compare-headline")
    assert page.locator(LANES).count() == 5
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator(".race-skip").evaluate("button => button.click()")
    assert page.locator(f"{LANES}[data-peer] .token:not([data-kind=plain])").count() == 0
    assert page.locator("#compare-charts rect.chart-assisted").count() == 1


def test_a_list_is_read_from_a_file_and_what_is_none_is_explained(page, tmp_path):
    load(page)
    tab(page, "Compare")
    page.click("#compare-list button")
    files = {
        "binary.txt": (bytes(range(256)), "not UTF-8 text"),
        "nul.txt": (b"a\0b\0", "not text"),
        "large.txt": (b"Tell me a story.\n" * 70_000, "larger than 1 MB"),
        "blank.txt": (b" \n \n", "list is empty"),
        "many.txt": (b"Hello.\n" * 201, "200 are the most"),
    }
    for name, (data, said) in files.items():
        (tmp_path / name).write_bytes(data)
        give(page, tmp_path / name)
        page.wait_for_selector(f"#compare-list-progress [role=alert]:has-text('{said}')")
        assert page.input_value("#compare-prompts textarea") == ""
    (tmp_path / "good.txt").write_text("\ufeffOne <b>story</b>.\r\n\r\nAnother one.\n")
    give(page, tmp_path / "good.txt")
    page.wait_for_function(
        "document.querySelector('#compare-prompts textarea').value === 'One <b>story</b>.\\nAnother one.'"
    )
    page.wait_for_selector("#compare-list-progress:not(:has([role=alert]))", state="attached")


def give(page, path):
    with page.expect_file_chooser() as chooser:
        page.click("#compare-file")
    chooser.value.set_files(path)
