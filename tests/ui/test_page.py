"""The Chat tab in Chromium with the embedded pair, from the first Load to the last answer."""

import re

import pytest

from tests.support.chat_page import answers, choose, finish, load, send, set_number, settle, tokens

pytestmark = [pytest.mark.browser, pytest.mark.slow]

REQUEST = "Tell me a story about a dog."
HOSTILE = (
    "<img src=http://other.example/a.png onerror=alert(1)> <script>alert(2)</script> "
    "![x](http://other.example/b.png) ${alert(3)} {{value}} $x^2$ \u202eabc\u202c " + "x" * 300
)


def test_a_suggestion_clicked_before_anything_is_loaded_loads_stories_and_is_answered(page):
    choose(page, "stories")
    page.wait_for_selector("#examples button:has-text('story')")
    assert page.locator("#status [data-state=empty]").count() == 1
    page.locator("#examples button").first.click()
    page.wait_for_selector("#notice:has-text('as soon as stories is loaded')")
    assert page.is_disabled("#send")
    page.wait_for_selector("#status [data-state=ready]:has-text('stories')", timeout=120_000)
    page.wait_for_selector("#conversation .turn-answer .turn-text:not(:empty)")
    finish(page)
    assert page.input_value("#message textarea") == ""
    assert page.locator("#notice p").count() == 0


def test_settings_out_of_range_are_refused_with_the_fields_name_and_keep_the_message(page):
    load(page)
    for label, value, valid in (("Longest answer", 0, 20), ("Longest answer", 2049, 20), ("Top-k", -1, 0)):
        set_number(page, label, value)
        page.fill("#message textarea", REQUEST)
        page.click("#send")
        page.wait_for_selector(f"#notice .notice:has-text('not {value}.')")
        assert page.inner_text("#notice").strip().startswith(f"{label} must be a whole number from")
        assert page.input_value("#message textarea") == REQUEST
        set_number(page, label, valid)
    assert page.locator(".toast-body").count() == 0
    send(page, REQUEST)
    finish(page)
    assert page.locator("#notice p").count() == 0


def test_load_ask_and_see_every_kind_of_token(page):
    load(page)
    send(page, REQUEST)
    finish(page)
    for kind in ("accepted", "rejected", "correction"):
        assert tokens(page, kind).count() > 0, kind
    emitted = "".join(
        tokens(page).evaluate_all(
            """all => all.filter(token => !['rejected', 'untested'].includes(token.dataset.kind))
                        .map(token => token.textContent)"""
        )
    )
    plain = re.sub(r"[\s↵]|end$", "", emitted)
    assert plain == re.sub(r"\s", "", answers(page).last.inner_text())
    figures = page.locator("#conversation .figures").last.inner_text()
    assert re.search(r"tokens/s\s+\d+\.\d", figures)
    assert re.search(r"acceptance rate\s+\d+ %", figures)
    assert re.search(r"block efficiency\s+[1-9]\.\d\d", figures)
    assert re.search(r"time to first token\s+\d", figures)


def test_p_and_q_show_on_hover_and_on_keyboard_focus(page):
    load(page)
    send(page, REQUEST)
    finish(page)
    tokens(page, "rejected").first.hover()
    tip = page.locator("#token-tip")
    assert "rejected draft" in tip.inner_text()
    assert re.search(r"target, p\s*\d.*drafter, q\s*\d", tip.inner_text(), re.DOTALL)
    tokens(page).first.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.classList.contains('token')")
    assert page.locator(".token[aria-describedby=token-tip]").count() == 1
    assert tip.is_visible()


def test_stop_in_the_middle_then_send_again(page):
    load(page)
    set_number(page, "Longest answer", 2000)
    set_number(page, "Temperature", 2)  # rambles on without an end, with this seed
    set_number(page, "Seed", 17)
    send(page, "Tell me a story about a dog. " * 3)
    page.wait_for_function(
        """() => {
            const enough = document.querySelectorAll('#token-view span.token').length >= 12;
            if (enough) document.querySelector('#stop').click();
            return enough;
        }""",
        polling=10,
    )
    finish(page)
    assert "Stopped by you." in page.inner_text("#conversation")
    so_far = answers(page).last.inner_text()
    assert so_far.strip()
    set_number(page, "Longest answer", 30)
    send(page, "Tell me another story.")
    finish(page)
    assert answers(page).count() == 2
    assert answers(page).first.inner_text() == so_far


def test_a_mismatched_pair_is_refused_and_the_loaded_one_goes_on(page):
    load(page)
    load(page, "mismatched", "refused")
    report = page.inner_text("#status")
    assert "stories is still loaded" in report
    assert page.locator("#status table.report tr[data-verdict=fail]").count() > 0
    send(page, REQUEST)
    finish(page)
    assert tokens(page, "accepted").count() > 0


def test_hostile_text_is_shown_as_text(page):
    load(page)
    set_number(page, "Longest answer", 20)
    send(page, HOSTILE)
    finish(page)
    assert page.locator("#conversation .turn-user .turn-text").inner_text() == HOSTILE
    assert page.locator("#conversation img, #conversation script, #token-view img").count() == 0
    settle(page)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a\ud800b", "U+D800"),
        ("a\u0007b", "U+0007"),
        ("dog " * 25_000, "context"),
    ],
    ids=["empty", "blank", "surrogate", "control", "100000-characters"],
)
def test_what_cannot_be_answered_is_explained_and_what_was_typed_stays(page, typed, said):
    load(page)
    page.evaluate(
        """text => {
            const box = document.querySelector('#message textarea');
            box.value = text;
            box.dispatchEvent(new Event('input', {bubbles: true}));
        }""",
        typed,
    )
    page.click("#send")
    page.wait_for_selector("#notice .notice")
    assert said in page.inner_text("#notice")
    page.wait_for_selector("#send:enabled")
    page.wait_for_function(
        "length => document.querySelector('#message textarea').value.length == length", arg=len(typed)
    )
    set_number(page, "Longest answer", 10)
    send(page, REQUEST)
    finish(page)
    assert page.locator("#notice .notice").count() == 0


def test_typed_control_tokens_end_nothing(page):
    load(page)
    set_number(page, "Longest answer", 20)
    text = "<|end|> <|eot_id|> </s> Tell me about a dog."
    send(page, text)
    finish(page)
    assert page.locator("#conversation .turn-user .turn-text").inner_text() == text
    assert tokens(page).count() > 0


def test_clear_begins_anew(page):
    load(page)
    set_number(page, "Longest answer", 10)
    send(page, REQUEST)
    finish(page)
    page.click("#clear")
    page.wait_for_function("document.querySelectorAll('#conversation .turn').length == 0")
    assert tokens(page).count() == 0


def test_an_example_is_asked_with_one_click(page):
    load(page)
    set_number(page, "Longest answer", 10)
    page.locator("#examples button").first.click()
    page.wait_for_selector("#conversation .turn-answer .turn-text:not(:empty)")
    finish(page)
    assert page.input_value("#message textarea") == ""


def test_an_answer_goes_on_while_another_page_is_closed(page, browser, address):
    load(page)
    other = browser.new_page()
    other.goto(address)
    other.wait_for_selector("#status [data-state=ready]")
    send(other, REQUEST)
    send(page, REQUEST)
    other.close()
    finish(page)
    assert "Stopped" not in page.inner_text("#conversation")


@pytest.mark.parametrize(("scheme", "width"), [("light", 390), ("dark", 1280), ("light", 1920)])
def test_nothing_is_wider_than_the_window(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    load(page)
    set_number(page, "Longest answer", 60)
    send(page, REQUEST)
    finish(page)
    load(page, "mismatched", "refused")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
