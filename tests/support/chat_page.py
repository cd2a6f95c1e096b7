"""Steps of a person at the Chat tab, in Chromium."""

import re


def choose(page, name):
    """Choose a preset."""
    page.click("#preset input")
    page.locator("ul[role=listbox] li", has_text=re.compile(rf"^\W*{name}\b")).click()


def load(page, name="stories", state="ready"):
    """Load a preset and wait for the status."""
    choose(page, name)
    page.click("#load")
    page.wait_for_selector(f"#status [data-state={state}]:has-text('{name}')", timeout=120_000)


def send(page, text):
    """Send a message and wait until it is in the conversation."""
    questions = page.locator("#conversation .turn-user").count()
    page.fill("#message textarea", text)
    page.click("#send")
    page.wait_for_function(
        "count => document.querySelectorAll('#conversation .turn-user').length === count", arg=questions + 1
    )


def finish(page, limit_s: float = 120):
    """Wait for the end of the answer."""
    page.wait_for_function("!document.querySelector('#conversation .is-streaming')", timeout=1000 * limit_s)
    page.wait_for_selector("#stop:disabled")
    page.wait_for_selector("#send:enabled")


def ask(page, text="Tell me a story.", limit_s: float = 120):
    """Send a message and wait for the end of its answer."""
    send(page, text)
    finish(page, limit_s)


def tokens(page, kind=None):
    """Return the tokens of the token view, of one kind or all."""
    return page.locator("#token-view span.token" + (f'[data-kind="{kind}"]' if kind else ""))


def set_number(page, label, value):
    """Set a number in the settings panel."""
    field = page.get_by_label(re.compile(f"^(number input for )?{label}$"))
    if not field.is_visible():
        page.click("#settings button")
    field.fill(str(value))
    field.press("Tab")


def answers(page):
    """Return the texts of all answers."""
    return page.locator("#conversation .turn-answer .turn-text")


def settle(page):
    """Wait until the page has been laid out and painted, and its transitions have ended."""
    page.evaluate(
        """async () => {
            for (let frame = 0; frame < 2; frame += 1) await new Promise(requestAnimationFrame);
            const transitions = document.getAnimations().filter((each) => each instanceof CSSTransition);
            await Promise.allSettled(transitions.map((each) => each.finished));
        }"""
    )
