"""Markdown of answers in Chromium: while it streams, at its end, and where it is hostile."""

import random
import re

import pytest

from specdec_ui.parts.assets import json_line
from tests.support.conversation_page import (
    END,
    QUESTION,
    answer_html,
    conversation_in,
    open_conversation,
    stream,
)

pytestmark = [pytest.mark.browser, pytest.mark.slow]

RICH = """\
# A *large* heading

A paragraph with **strong**, *emphasis*, ~~struck~~, `inline code`, ***both*** and a
second line, snake_case_name and 5 * 3.
Right before a list:
- one
- two **bold**
  - nested
    1. ordered
    2. more

       a paragraph inside

3. third
4. fourth

> A quote
> of two lines
>
> - and a list

```python
def f(x):
    return "**not bold** <b>x</b>"
```

| left | right |
|:-----|------:|
| `a`  | **1** |

***

Setext
======

    indented
foo
#hash
1999 is a year
***bold italic***
"""
ELSEWHERE = "http://other.example/"
LITERAL = (
    f"![x]({ELSEWHERE}b.png) [link]({ELSEWHERE}) <{ELSEWHERE}> {ELSEWHERE} <img src={ELSEWHERE}a.png "
    "onerror=alert(1)> <script>alert(2)</script> &lt;b&gt; &amp; ${alert(3)} {{value}} $x^2 * y * z$ "
    "\\(a*b*c\\) \\[\\frac{a}{b}\\] \u202eabc\u202c \u200fx"
)
WORD = "x" * 5000
HOSTILE = (
    f"{LITERAL}\n\n# {LITERAL}\n\n- {LITERAL}\n\n> {LITERAL}\n\n"
    f"| a | b |\n|---|---|\n| {WORD} | {LITERAL} |\n\n"
    f"```<img>\n{LITERAL}\n{WORD}\n```\n\n{WORD}\n\n# {WORD}\n\n- {WORD}\n\n`{WORD}`\n\n[x]: {ELSEWHERE}\n"
    f"<div onclick='alert(4)'>\n<iframe src={ELSEWHERE}></iframe>\n</div>\n"
)
ALLOWED = {"P", "H4", "H5", "H6", "UL", "OL", "LI", "BLOCKQUOTE", "HR", "BR", "EM", "STRONG", "S"}
ALLOWED |= {"CODE", "PRE", "DIV", "SPAN", "BUTTON", "TABLE", "THEAD", "TBODY", "TR", "TH", "TD"}


def in_pieces(text, longest=6, seed=0):
    rng, at = random.Random(seed), 0
    while at < len(text):
        end = at + rng.randint(1, longest)
        yield text[at:end]
        at = end


@pytest.fixture
def view(browser):
    with conversation_in(browser) as page:
        yield page


def shown(view, text):
    """The answer's text as it stands when it has come as far as `text`."""
    stream(view, [text], ended=False)
    return answer_html(view)


def test_each_kind_of_block_and_mark_becomes_its_element(view):
    stream(view, [RICH])
    answer = view.locator(".turn-answer .turn-text")
    for selector, text in {
        "h4.md-h1 em": "large",
        "p strong": "strong",
        "p s": "struck",
        "p code": "inline code",
        "p em strong": "both",
        "ul > li > strong": "bold",
        "ul ul > li": "nested",
        "ul ul ol > li:first-child p": "ordered",
        "blockquote li": "and a list",
        ".md-code-head span >> nth=0": "python",
        "th >> nth=0": "left",
        "td >> nth=0": "a",
        "td strong": "1",
    }.items():
        assert text in answer.locator(selector).first.inner_text(), selector
    assert answer.locator("ol[start='3'] > li").count() == 2
    assert answer.locator("hr").count() == 1
    assert answer.locator("td").nth(1).evaluate("cell => getComputedStyle(cell).textAlign") == "right"
    code = answer.locator("pre code").first
    assert code.inner_text() == 'def f(x):\n    return "**not bold** <b>x</b>"'
    assert "mono" in code.evaluate("code => getComputedStyle(code).fontFamily")


@pytest.mark.parametrize("text", [RICH, HOSTILE.replace(WORD, WORD[:50])], ids=["rich", "hostile"])
def test_what_streams_in_pieces_ends_as_what_comes_at_once(view, text):
    stream(view, [text])
    at_once = answer_html(view)
    for seed in range(3):
        stream(view, in_pieces(text, seed=seed))
        assert answer_html(view) == at_once


def test_nothing_but_text_and_known_elements_ever_stands_in_an_answer(view):
    view.set_viewport_size({"width": 390, "height": 844})
    stream(view, in_pieces(HOSTILE, longest=400))
    answer = view.locator(".turn-answer .turn-text")
    found = answer.evaluate("node => [...node.querySelectorAll('*')].map(each => each.tagName)")
    assert set(found) <= ALLOWED
    attributes = answer.evaluate(
        "node => [...node.querySelectorAll('*')].flatMap(each => each.getAttributeNames())"
    )
    assert set(attributes) <= {"class", "dir", "start", "style", "tabindex", "type"}
    for block in ("p", "h4", "ul > li", "blockquote p", "td:last-child"):
        assert answer.locator(block).first.text_content() == LITERAL, block
    assert answer.locator("pre code").first.text_content() == f"{LITERAL}\n{WORD}"
    assert view.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    log = view.locator(".conversation-log")
    assert log.evaluate("log => log.scrollWidth <= log.clientWidth"), "the column is wider than its box"


def test_a_question_stays_the_text_that_it_is(view):
    view.evaluate("value => window.show(value)", json_line(event="user", text=RICH + HOSTILE))
    assert view.locator(".turn-user .turn-text").evaluate("node => node.textContent") == RICH + HOSTILE
    assert view.locator(".turn-user .turn-text *").count() == 0


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("Some **bol", "Some <strong>bol</strong>"),
        ("Some **bold*", "Some <strong>bold</strong>"),
        ("Some *emph", "Some <em>emph</em>"),
        ("Some ~~stru", "Some <s>stru</s>"),
        ("Some `co", "Some <code>co</code>"),
        ("Some **bold and *bo", "Some <strong>bold and <em>bo</em></strong>"),
        ("2*x is", "2*x is"),
        ("Said:\n-", "Said:"),
        ("Said:\n```", "Said:"),
    ],
)
def test_what_is_half_written_looks_as_it_will(view, text, html):
    assert re.sub(r"^<p dir=\"auto\">(.*)</p>$", r"\1", shown(view, text)) == html


def test_a_code_block_is_one_from_its_first_line_on(view):
    assert "md-code" in shown(view, "```python\nx = 1")


def test_whole_blocks_stay_while_the_next_ones_grow(view):
    text = "First **one**.\n\n```\ncode\n```\n\nLast"
    stream(view, [text], ended=False)
    view.evaluate(
        """() => {
            const answer = document.querySelector('.turn-answer .turn-text');
            window.before = [...answer.children];
            const last = answer.lastElementChild.firstChild;
            getSelection().setBaseAndExtent(last, 0, last, 4);
        }"""
    )
    lines = QUESTION + "".join(json_line(event="text", text=piece) for piece in (text, " words", "\n\n- a"))
    view.evaluate("value => window.show(value)", lines)
    view.wait_for_selector(".turn-answer li")
    assert view.evaluate(
        """() => {
            const now = document.querySelector('.turn-answer .turn-text').children;
            return window.before.every((node, at) => node === now[at]) && now.length === 4;
        }"""
    )
    assert view.evaluate("getSelection().toString()") == "Last"


def test_code_and_answer_are_copied_as_they_were_written(view):
    view.evaluate(
        "navigator.clipboard ??= {}; navigator.clipboard.writeText = text => (window.copied = text)"
    )
    stream(view, in_pieces(RICH))
    view.get_by_role("button", name="Copy the code").first.click()
    assert view.evaluate("window.copied") == 'def f(x):\n    return "**not bold** <b>x</b>"'
    view.get_by_role("button", name="Copy the answer").click()
    assert view.evaluate("window.copied") == RICH
    assert view.get_by_role("button", name="Copied").count() == 2


PATHOLOGICAL = {
    "words": "word **bold** and `code`, " * 1250,
    "paragraphs": ("Some **bold** words and `code`. " * 6 + "\n\n") * 160,
    "list": "".join(f"- item {at} with **bold** and `code`\n" for at in range(830)),
    "stars": "*a **b " * 1500,
    "quotes": ">" * 5000 + " deep",
    "brackets": "[" * 5000 + "![" * 2000,
    "ticks": "".join("`" * (at % 40 + 1) + "a " for at in range(300)),
    "dollars": "$ $a \\( $$ " * 1000,
}


@pytest.mark.parametrize("text", PATHOLOGICAL.values(), ids=PATHOLOGICAL.keys())
def test_5000_words_stream_fast_whatever_they_are(view, text):
    """The page may be busy with an answer for a fraction of the time that a fast model takes for it."""
    frames = stream(view, in_pieces(text, longest=40))
    assert sum(frames) < 8_000, f"{len(frames)} pieces took {sum(frames):.0f} ms"
    assert max(frames) < 1_000
    said = view.locator(".turn-answer .turn-text").evaluate("node => node.textContent")
    assert len(said) > 0.4 * len(text), "text was left out"


def test_changes_are_offered_for_the_last_turn_only_when_it_has_ended(view):
    stream(view, ["One"], ended=False)
    assert view.locator("button.change").count() == 0
    stream(view, ["One"])
    assert view.locator("button.change").all_text_contents() == [
        "Edit your message",
        "Retry for another answer",
        "Undo the last message and its answer",
    ]
    for name in ("Retry", "Undo"):
        view.get_by_role("button", name=name).dblclick()
    assert view.evaluate("window.events") == [["retry"], ["undo"]]
    view.evaluate("value => window.show(value)", (QUESTION + END) * 2)
    assert view.locator("button.change").count() == 3


def test_actions_show_on_hover_and_focus_and_always_on_touch(browser):
    for touch in (False, True):
        context = browser.new_context(
            viewport={"width": 700, "height": 900}, has_touch=touch, is_mobile=touch
        )
        page = context.new_page()
        open_conversation(page)
        page.evaluate("value => window.show(value)", (QUESTION + END) * 2)
        bar = page.locator(".turn-actions").first
        page.mouse.move(690, 890)
        opacity = "bar => getComputedStyle(bar).opacity"
        assert bar.evaluate(opacity) == ("1" if touch else "0")
        bar.get_by_role("button").focus()
        page.wait_for_function("getComputedStyle(document.querySelector('.turn-actions')).opacity === '1'")
        context.close()


@pytest.mark.parametrize("scheme", ["", "dark"], ids=["light", "dark"])
def test_what_markdown_looks_like_breaks_no_rule_of_wcag(view, scheme):
    axe = pytest.importorskip("axe_playwright_python.base", reason="tests/requirements.txt has it")
    stream(view, in_pieces(RICH))
    view.evaluate("scheme => document.body.className = scheme", scheme)
    view.add_style_tag(content="body { background: var(--paper) } .turn-actions { opacity: 1 !important }")
    view.evaluate(f"{axe.AXE_SCRIPT}; undefined")
    view.evaluate(
        """() => {
            const tags = ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa'];
            axe.run('#conversation', {runOnly: tags}).then((result) => {
                const found = ({id, nodes}) => [id, ...nodes.map((node) => node.html.slice(0, 200))];
                window.found = result.violations.map(found);
            });
        }"""
    )
    assert view.wait_for_function("window.found").json_value() == []
