"""The reason for a round's gamma in the round panel, in Chromium, for opened traces."""

from dataclasses import replace

import pytest

from specdec_ui.parts.trace_files import to_json
from tests.support.made_up_traces import made_up
from tests.support.replay import ReplayEngine
from tests.support.replayed_page import replayed_page
from tests.support.tab_page import open_trace, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def address():
    with replayed_page(ReplayEngine()) as url:
        yield url


REASONS = [
    ({"gamma_reason": "fixed"}, "as the settings ask"),
    ({"gamma_reason": "baseline"}, "plain decoding: nothing is drafted"),
    (
        {"gamma_reason": "auto", "gamma_gain": 1.5},
        "chosen for this round: 1.50× the plain rate is expected",
    ),
    (
        {"gamma_reason": "probe", "gamma_cut": True},
        "chosen for this round: a probe, whether drafting pays again, cut to the room left",
    ),
    (
        {"gamma_reason": "auto: 1.50× the plain rate is expected, cut to the room left"},
        "auto: 1.50× the plain rate is expected, cut to the room left",
    ),
    (
        {"gamma_reason": "fixed", "source": "ngram"},
        "as the settings ask; drafts by repetition (n-gram)",
    ),
    ({"gamma_reason": "no_match"}, "no drafts: the last words did not occur before"),
    ({"gamma_reason": "constructor"}, "constructor"),
    ({"gamma_reason": "<img src=x onerror=alert(1)> {gain}"}, "<img src=x onerror=alert(1)> {gain}"),
]


def test_each_round_shows_the_reason_for_its_gamma(page, tmp_path):
    trace = made_up()
    first, last = list(trace.rounds[:2]), trace.rounds[-1]
    rounds = first + [
        replace(trace.rounds[2], index=at, **changes) for at, (changes, _) in enumerate(REASONS, 2)
    ]
    path = tmp_path / "trace.json"
    rounds.append(replace(last, index=len(rounds)))
    path.write_text(to_json(replace(trace, rounds=rounds)), encoding="utf-8")
    tab(page, "Traces")
    open_trace(page, path)
    for at, (_, words) in enumerate(REASONS, 2):
        page.locator("#trace-view .round").nth(at).locator(".token").first.click()
        assert page.inner_text("#trace-view .round-facts small") == words
