"""Token view in Chromium, over a replayed answer: rounds, earlier answers, and meanings of terms."""

import json
import re
import threading
from dataclasses import asdict
from io import BytesIO

import pytest
from PIL import Image

import specdec_core as sd
from specdec_ui.chat.handlers import FRAME_S
from specdec_ui.parts import token_view
from specdec_ui.parts.terms import MEANINGS, term
from tests.support.chat_page import ask
from tests.support.replay import STORY, ReplayEngine, rounds_of
from tests.support.replayed_page import replayed_page

HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)}\n\u202eabc\u202c"


def test_a_round_line_has_what_the_panel_shows():
    rnd = rounds_of(STORY)[3]
    line = json.loads(token_view.round_line(rnd))
    assert line["round"] == rnd.index
    assert line["gamma"] == [rnd.gamma, rnd.gamma_reason, rnd.gamma_gain, rnd.gamma_cut, rnd.source]
    assert line["ms"] == [4.0, 8.0, 1.0]
    for token, shown in zip(rnd.tokens, line["tokens"], strict=True):
        assert shown[:2] == [token.kind, token.text]
        assert shown[2] == pytest.approx(token.target_prob, rel=1e-3)


def test_a_round_line_has_the_id_of_a_token_without_text():
    tokens = [sd.Token(5, "a", "accepted"), sd.Token(2, "", "correction")]
    line = json.loads(token_view.round_line(sd.Round(1, 0, 4, "fixed", tokens, "a", 0.0, 0.0, 0.0)))
    assert [shown[4:] for shown in line["tokens"]] == [[], [2]]


def _likely(*ids: int) -> list[sd.Alternative]:
    return [sd.Alternative(each, f" w{each}" if each else "", 0.5 / (1 + each), 0.25) for each in ids]


ALTERNATIVES = sd.Round(
    1,
    0,
    4,
    "fixed",
    [
        sd.Token(5, " w5", "accepted", 0.9, 0.8, _likely(5, 6), _likely(5, 7)),
        sd.Token(8, " w8", "rejected", 0.1, 0.8, _likely(9, 0), _likely(8, 6)),
        sd.Token(3, " w3", "untested", 0.1, 0.8, _likely(3), _likely(3)),
        sd.Token(9, " w9", "correction", 0.9, 0.1, _likely(9, 0), _likely(8, 6)),
    ],
    " w5 w9",
    0.1,
    0.2,
    0.0,
)


def test_a_round_line_has_the_other_tokens_that_were_likely_once():
    line = json.loads(token_view.round_line(ALTERNATIVES))
    texts = [[each[0] for each in others] for others in line["alternatives"]]
    assert texts == [[" w6", " w7"], [], [], ["", " w6"]]
    assert line["alternatives"][3][0] == ["", 0.5, 0.25, 0]
    assert "alternatives" not in json.loads(token_view.round_line(rounds_of(STORY)[3]))


def test_a_round_line_stays_small_whatever_a_file_says():
    rnd = sd.Round(1, 0, 4, "x" * 10_000, [], "", 0.0, 0.0, 0.0)
    assert len(token_view.round_line(rnd)) < 400


def test_a_question_is_cut_to_a_line():
    line = json.loads(token_view.answer_line(3, "a \n b " * 100))
    assert line["answer"] == 3
    assert len(line["asked"]) <= 60
    assert "\n" not in line["asked"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (sd.Settings(verification="rejection", temperature=0.8), "p ÷ q"),
        (sd.Settings(verification="coupled", temperature=0.8), "same noise"),
        (sd.Settings(temperature=0), "temperature 0"),
        (sd.Settings(temperature=0, alternatives=3), "Alternatives have their chances at temperature 1"),
        (sd.Settings(gamma=0), "^$"),
    ],
)
def test_an_answer_says_by_which_rule_its_drafts_stood(settings, said):
    assert re.search(said, json.loads(token_view.answer_line(1, "x", asdict(settings)))["rule"])


def test_a_term_is_a_button_with_its_meaning_escaped():
    assert term("runner").startswith('<button type="button" class="term"')
    assert MEANINGS["runner"][:20] in term("runner")
    assert term("<b>") == "&lt;b&gt;"


def in_browser(test):
    return pytest.mark.browser(pytest.mark.slow(test))


@pytest.fixture(scope="module")
def engine():
    return ReplayEngine()


@pytest.fixture(scope="module")
def replayed(engine):
    with replayed_page(engine) as url:
        yield url


@pytest.fixture
def visit(browser, replayed, engine):
    """Opens a page on which `engine` answers, as wide as asked; nothing in it may fail."""
    contexts, faults = [], []

    def open_page(width=1280, touch=False):
        context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=touch)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.goto(replayed)
        page.wait_for_selector("#status [data-state=ready]")
        return page

    engine.text, engine.pace_s, engine.permits, engine.given = STORY, 0.0, None, None
    yield open_page
    if engine.permits is not None:
        engine.permits.release(1000)
    for context in contexts:
        context.close()
    assert faults == []


def token(page, kind, at=0):
    return page.locator(f'#token-view .token[data-kind="{kind}"]').nth(at)


def panel(page):
    return page.locator("#token-view .round-panel")


def first_with(kind):
    return next(rnd for rnd in rounds_of(STORY) if any(each.kind == kind for each in rnd.tokens))


@in_browser
def test_a_round_lists_alternatives_below_their_token(visit, engine):
    engine.given = [ALTERNATIVES]
    page = visit()
    engine.given = [ALTERNATIVES]
    ask(page)
    token(page, "accepted").click()
    rows = panel(page).locator("tbody tr")
    cells = [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in rows.all()]
    assert [(row[1], row[4]) for row in cells] == [
        ("w5", "accepted"),
        ("w6", "alternative"),
        ("w7", "alternative"),
        ("w8", "rejected"),
        ("w3", "untested"),
        ("w9", "correction"),
        ("∅", "alternative"),
        ("w6", "alternative"),
    ]
    assert cells[1][2:4] == ["7.14 %", "25.0 %"]


@in_browser
@pytest.mark.parametrize("way", ["click", "tap", "Enter"])
def test_a_token_opens_its_round_with_all_that_is_known_of_it(visit, way):
    page = visit(touch=way == "tap")
    ask(page)
    rejected = token(page, "rejected")
    if way == "Enter":
        rejected.focus()
        page.keyboard.press("Enter")
    else:
        getattr(rejected, way)()
    rnd = first_with("rejected")
    assert page.locator("#token-view .round-title").inner_text().startswith(f"Round {rnd.index} of ")
    rows = panel(page).locator("tbody tr")
    assert rows.count() == len(rnd.tokens)
    for at, each in enumerate(rnd.tokens):
        cells = rows.nth(at).locator("td").all_inner_texts()
        assert cells[0] == (str(at + 1) if each.kind in ("accepted", "rejected", "untested") else "")
        assert each.text.strip() in cells[1]
        assert float(cells[2].split()[0]) == pytest.approx(100 * each.target_prob, abs=0.06)
        assert float(cells[3].split()[0]) == pytest.approx(100 * each.drafter_prob, abs=0.06)
        assert cells[4] == each.kind
    said = panel(page).inner_text()
    wanted, instead = (next(t.text for t in rnd.tokens if t.kind == k) for k in ("rejected", "correction"))
    assert f"rejected “{wanted.strip()}” and put “{instead.strip()}” in its place" in said
    assert re.search(r"gamma\s+4\s*as the settings ask", said)
    assert re.search(r"draft\s+4\.00 ms\s+verify\s+8\.00 ms\s+overhead\s+1\.00 ms", said)
    assert re.search(rf"tokens given\s+{len(rnd.emitted)}\b", said)
    assert "stands with the chance p ÷ q" in said or "same noise" in said


@in_browser
def test_rounds_are_walked_by_arrows_and_buttons_and_closed_by_escape_or_button(visit):
    page = visit()
    ask(page)
    title = page.locator("#token-view .round-title")
    token(page, "rejected").click()
    number = int(re.search(r"\d+", title.inner_text())[0])
    page.keyboard.press("ArrowRight")
    assert title.inner_text().startswith(f"Round {number + 1} of")
    assert page.locator("#token-view .round.is-open").count() == 1
    page.keyboard.press("ArrowLeft")
    page.click("#token-view .round-before")
    assert (
        page.locator("#token-view .round-title")
        .inner_text()
        .startswith(f"Round {number - 1} of" if number > 1 else "Before the first round")
    )
    page.keyboard.press("Escape")
    assert panel(page).is_hidden()
    assert page.evaluate("document.activeElement.classList.contains('token')")
    token(page, "bonus").click()
    page.click("#token-view .round-close")
    assert panel(page).is_hidden()
    assert page.locator("#token-view .round.is-open").count() == 0


@in_browser
def test_at_both_ends_the_buttons_say_so(visit):
    page = visit()
    ask(page)
    page.locator("#token-view .token").first.click()
    assert page.inner_text("#token-view .round-title") == "Before the first round"
    assert page.is_disabled("#token-view .round-before")
    for _ in rounds_of(STORY)[1:]:
        page.click("#token-view .round-after")
    last = rounds_of(STORY)[-1].index
    assert page.inner_text("#token-view .round-title") == f"Round {last} of {last}"
    assert page.is_disabled("#token-view .round-after")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#token-view .round-title") == f"Round {last - 1} of {last}"


@in_browser
def test_a_round_stays_open_while_the_answer_goes_on(visit, engine):
    page = visit()
    engine.pace_s = 2 * FRAME_S  # each round in a frame of its own
    engine.permits = threading.Semaphore(2)
    page.fill("#message textarea", "Tell me a story.")
    page.click("#send")
    page.locator("#token-view .token").nth(1).click()
    first = page.inner_text("#token-view .round-title")
    engine.permits.release(2)
    page.wait_for_function(
        "first => document.querySelector('#token-view .round-title').textContent !== first", arg=first
    )
    assert page.is_enabled("#stop")
    assert page.inner_text("#token-view .round-title").startswith(first.split(" of ")[0])
    page.click("#stop")
    engine.permits.release(1000)
    page.wait_for_selector("#send:enabled")
    assert panel(page).is_visible()


@in_browser
def test_hostile_tokens_stay_text_in_the_panel(visit, engine):
    page = visit()
    engine.text = " ".join([HOSTILE] * 4)
    ask(page)
    page.locator("#token-view .token").first.click()
    while page.is_enabled("#token-view .round-after"):
        page.click("#token-view .round-after")
    assert page.locator("#token-view :is(img, script)").count() == 0


END, PART_OF_A_CHARACTER = 2, 9


def ended_by_its_token():
    """Rounds with line ends of every place, a rejected draft of the end, and the end."""

    def rnd(index, *tokens):
        return sd.Round(index, index, 4, "fixed", list(tokens), "", 0.001, 0.001, 0.0)

    return [
        rnd(0, sd.Token(5, "Once.\n", "plain", 0.5)),
        rnd(
            1,
            sd.Token(6, " upon\n\na", "accepted", 0.5, 0.5),
            sd.Token(END, "", "rejected", 0.1, 0.5),
            sd.Token(7, '."\n', "correction", 0.5, 0.2),
        ),
        rnd(2, sd.Token(PART_OF_A_CHARACTER, "", "accepted", 0.5, 0.5), sd.Token(8, "\n", "bonus", 0.5)),
        rnd(3, sd.Token(6, " time", "accepted", 0.5, 0.5), sd.Token(END, "", "correction", 0.5, 0.1)),
    ]


@in_browser
def test_the_end_has_one_name_and_no_mark_runs_into_the_next_line(visit, engine):
    page = visit()
    engine.given = ended_by_its_token()
    ask(page)
    assert token(page, "rejected").inner_text() == "end"
    assert page.locator("#token-view .token").last.text_content() == "end"
    assert "∅" in page.locator("#token-view .token[data-kind=accepted]").nth(1).text_content()
    boxes = page.locator("#token-view .token-body").evaluate_all(
        "all => all.map((b) => b.getClientRects().length)"
    )
    assert set(boxes) == {1}
    token(page, "rejected").click()
    assert "rejected the end of the answer" in panel(page).inner_text()
    assert "end" in panel(page).locator("tbody tr").nth(1).inner_text()
    page.get_by_role("tab", name="Traces").click()
    page.wait_for_selector("#trace-view .token")
    assert page.locator("#trace-view .token").last.text_content() == "end"


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_ticked_box_is_seen(visit, scheme):
    page = visit()
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark")
    box = page.locator("#token-view .token-hide input")
    box.check()
    picture = Image.open(BytesIO(box.screenshot())).convert("L")
    darkest, lightest = picture.getextrema()
    assert lightest - darkest > 100


def kept_text(page):
    emitted = "#token-view .token:not([data-kind=rejected]):not([data-kind=untested])"
    return "".join(page.locator(emitted).all_text_contents()).replace("↵", "")


@in_browser
def test_the_tokens_of_earlier_answers_can_be_looked_at_again(visit, engine):
    page = visit()
    texts = ["One fine day it rained.", "Two birds sang a song.", "Three cats slept all day."]
    chooser = page.locator("#token-view .token-answers")
    for at, text in enumerate(texts):
        engine.text = text
        ask(page, f"Question {at + 1}")
        assert kept_text(page) == text
        assert chooser.is_visible() == (at > 0)
    assert chooser.locator("option").all_inner_texts() == [f"Answer {at} · Question {at}" for at in (1, 2, 3)]
    chooser.select_option("1")
    assert kept_text(page) == texts[0]
    token(page, "correction").or_(token(page, "bonus")).first.click()
    assert panel(page).is_visible()
    chooser.select_option("3")
    assert kept_text(page) == texts[2]
    assert panel(page).is_hidden()
    page.click("#clear")
    page.wait_for_function("!document.querySelector('#token-view .token')")
    assert chooser.is_hidden()
    engine.text = "A new beginning."
    ask(page, "Again")
    assert chooser.is_hidden()
    assert kept_text(page) == "A new beginning."


@in_browser
def test_an_opened_trace_starts_at_its_top_and_opens_its_rounds(visit, engine):
    page = visit()
    engine.text, engine.pace_s = " ".join([STORY] * 4), 0.01
    ask(page)
    scrolled = "document.querySelector('{} .token-flow').scrollTop"
    assert page.evaluate(scrolled.format("#token-view")) > 0
    page.get_by_role("tab", name="Traces").click()
    page.wait_for_selector("#trace-view .token")
    assert page.evaluate(scrolled.format("#trace-view")) == 0
    page.locator("#trace-view .token[data-kind=rejected]").first.click()
    assert page.locator("#trace-view .round-panel").is_visible()
    assert "Round" in page.inner_text("#trace-view .round-title")
    assert page.locator("#trace-view .token-answers").count() == 0


@in_browser
def test_a_new_answer_is_shown_though_an_earlier_one_was_looked_at(visit, engine):
    page = visit()
    for text in ("One fine day.", "Two fine days."):
        engine.text = text
        ask(page)
    page.locator("#token-view .token-answers").select_option("1")
    engine.text = "Three fine days."
    ask(page)
    assert kept_text(page) == "Three fine days."


@in_browser
@pytest.mark.parametrize("touch", [False, True], ids=["mouse", "touch"])
def test_a_figure_says_what_it_means_when_it_is_pointed_at_or_tapped(visit, touch):
    page = visit(width=390 if touch else 1280, touch=touch)
    ask(page)
    box = page.locator("#term-tip")
    for place, name in (("#conversation", "block efficiency"), ("#status", "runner")):
        word = page.locator(f"{place} .term", has_text=name).last
        word.scroll_into_view_if_needed()
        word.tap() if touch else word.hover()
        assert box.inner_text() == MEANINGS[name]
        page.keyboard.press("Escape")
        assert box.is_hidden()
    page.locator("#status .term").first.focus()
    assert box.is_visible()


@in_browser
def test_on_a_phone_the_tokens_come_before_the_settings_and_targets_are_large_enough(visit):
    page = visit(width=390, touch=True)
    ask(page)
    token(page, "rejected").tap()
    tops = [
        page.locator(place).bounding_box()["y"]
        for place in ("#conversation", "#message", "#token-view", "#settings")
    ]
    assert tops == sorted(tops)
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, input, summary")]
            .filter((each) => each.checkVisibility() && !each.closest("footer"))
            .filter((each) => {
                const { width, height } = (each.closest("label") || each).getBoundingClientRect();
                return height && Math.min(width, height) < 24;
            })
            .map((each) => each.outerHTML.slice(0, 120))"""
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
