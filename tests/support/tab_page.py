"""Steps of a person at the other tabs, in Chromium."""

from tests.support.chat_page import choose


def load(page):
    choose(page, "stories")
    page.click("#load")
    page.wait_for_selector("#status [data-state=ready] strong:has-text('stories')", timeout=120_000)


def tab(page, name):
    page.get_by_role("tab", name=name).click()


def compare(page):
    tab(page, "Compare")
    page.click("#compare-start")


def finished(page):
    page.wait_for_selector("#compare-headline .result", timeout=120_000)
    page.wait_for_selector("#compare-start:enabled")


def shorten(page, tokens):
    """With the settings of the comparison open."""
    box = page.locator("#compare-settings").get_by_label("Longest answer")
    box.fill(str(tokens))
    box.press("Tab")


def lane_text(page, at):
    emitted = ".token:not([data-kind=rejected]):not([data-kind=untested])"
    return "".join(page.locator(".race-lane").nth(at).locator(emitted).all_text_contents())


def open_trace(page, path):
    """Open a file in the tab Traces."""
    with page.expect_file_chooser() as chooser:
        page.click("#trace-open")
    chooser.value.set_files(path)
    page.wait_for_selector("#trace-view .token, #trace-facts [role=alert]")
