"""Steps of a person at the Chat tab, in Chromium."""

import re


def choose(page, name):
    page.click("#preset input")
    page.locator("ul[role=listbox] li", has_text=re.compile(rf"^\W*{name}\b")).click()


def load(page, name="stories", state="ready"):
    choose(page, name)
    page.click("#load")
    page.wait_for_selector(f"#status [data-state={state}]:has-text('{name}')", timeout=120_000)


def send(page, text):
    asked = page.locator("#conversation .turn-user").count()
    page.fill("#message textarea", text)
    page.click("#send")
    page.wait_for_function(
        "count => document.querySelectorAll('#conversation .turn-user').length === count", arg=asked + 1
    )


def finish(page):
    page.wait_for_function("!document.querySelector('#conversation .is-streaming')", timeout=120_000)
    page.wait_for_selector("#stop:disabled")
    page.wait_for_selector("#send:enabled")


def tokens(page, kind=None):
    return page.locator("#token-view span.token" + (f'[data-kind="{kind}"]' if kind else ""))


def set_number(page, label, value):
    field = page.get_by_label(re.compile(f"^(number input for )?{label}$"))
    if not field.is_visible():
        page.click("#settings button")
    field.fill(str(value))
    field.press("Tab")


def answers(page):
    return page.locator("#conversation .turn-answer .turn-text")
