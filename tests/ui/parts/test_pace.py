"""Token view of a long answer: no token is lost or drawn twice. pace.py measures the lag."""

import pytest

from tests.support.pace import PacedEngine, measure, text_of
from tests.support.replayed_page import replayed_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SHOWN = """() => [...document.querySelectorAll("#token-view .round")].map(
    (round) => [...round.children].map((token) => [token.dataset.kind, token.textContent]))"""


def test_2000_tokens_come_as_fast_as_they_can_and_each_is_drawn_once(browser):
    engine = PacedEngine(text=text_of(2000), round_s=0)
    with replayed_page(engine) as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("#status [data-state=ready]")
        measured = measure(page, engine, limit_s=60)
        shown = page.evaluate(SHOWN)
        elements = page.evaluate("document.querySelectorAll('#token-view .token-flow *').length")
        page.close()
    assert len(shown) == len(measured.lags) == len(engine.due)
    kept = "".join(text for round in shown for kind, text in round if kind not in ("rejected", "untested"))
    assert kept.replace("↵\n", "\n").replace("↵", "\n") == engine.text
    assert (measured.nodes, measured.removed) == (elements, 0)
