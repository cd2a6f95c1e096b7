"""The running page in Chromium, for every test that drives it."""

import os
from contextlib import contextmanager

import pytest

from tests.support.mismatched import write_mismatched_preset
from tests.support.running_app import CHROMIUM, running_app


def without_browser(why):
    if os.environ.get("SPECDEC_REQUIRE_BROWSER"):
        pytest.fail(f"{why}; SPECDEC_REQUIRE_BROWSER says that it must be here.")
    pytest.skip(why)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The running page, with a preset on offer whose models do not fit each other."""
    folder = tmp_path_factory.mktemp("presets")
    write_mismatched_preset(folder)
    with running_app(folder / "app.log", SPECDEC_PRESETS=str(folder)) as url:
        yield url


@pytest.fixture(scope="session")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        without_browser("playwright is not installed (tests/requirements.txt)")
    if CHROMIUM is None:
        without_browser("Chromium is not installed (apt-get install chromium, or set CHROMIUM)")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def opened_page(browser, address):
    """A fresh page; nothing on it may call another host, open a dialog or fail in its scripts."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults = []
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("pageerror", lambda error: faults.append(f"script error: {error}"))
    page.on("request", lambda request: is_foreign(request.url, address) and faults.append(request.url))
    page.goto(address)
    page.wait_for_selector("#load")
    page.wait_for_selector("#status [data-state]")
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def page(browser, address):
    """A page for one test."""
    with opened_page(browser, address) as page:
        yield page


@pytest.fixture(scope="module")
def shared_page(browser, address):
    """A page for tests that only look at what is on it."""
    with opened_page(browser, address) as page:
        yield page


def is_foreign(url, address):
    return not url.startswith((address, "data:", "blob:"))
