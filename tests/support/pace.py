"""How far the token view lags behind the rounds: a replayed answer at a steady pace, in Chromium.

.venv/bin/python -m tests.support.pace [--tokens 2000] [--rounds-per-second 40] [--answers-before 0]
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from playwright.sync_api import Page, sync_playwright

from specdec_core.trace import Round
from tests.support.replay import STORY, ReplayEngine, pieces
from tests.support.replayed_page import replayed_page
from tests.support.running_app import CHROMIUM

OBSERVE = """
() => {
    const flow = document.querySelector("#token-view .token-flow");
    const lag = (window.lag = { shown: [], nodes: 0, batches: 0, removed: 0 });
    const afterPaint = (act) => requestAnimationFrame(() => {
        const channel = new MessageChannel();
        channel.port1.onmessage = act;
        channel.port2.postMessage(null);
    });
    new MutationObserver((records) => {
        const rounds = records.flatMap((record) => [...record.addedNodes]);
        lag.batches += 1;
        for (const record of records) lag.removed += record.removedNodes.length;
        for (const round of rounds) lag.nodes += 1 + round.querySelectorAll("*").length;
        afterPaint(() => rounds.forEach(() => lag.shown.push(Date.now())));
    }).observe(flow, { childList: true });
}
"""


@dataclass
class PacedEngine(ReplayEngine):
    """Gives each round when it is due by the clock, so that small delays do not add up."""

    round_s: float = 0.025
    due: list[float] = field(default_factory=list)

    def _rounds(self, rounds: list[Round], cancel: threading.Event) -> Iterator[Round]:
        self.due = []
        start = time.time()
        for at, rnd in enumerate(super()._rounds(rounds, cancel)):
            self.due.append(start + at * self.round_s)
            time.sleep(max(0.0, self.due[-1] - time.time()))
            yield rnd


@dataclass(frozen=True)
class Measured:
    """Lags in ms, one for each round in its order: from when it was due until it was painted. `nodes` were
    added to the token view and `removed` from it, in so many `batches`.
    """

    lags: list[float]
    nodes: int
    batches: int
    removed: int


def text_of(tokens: int) -> str:
    """A text that is cut into that many tokens."""
    story = pieces(STORY + " ")
    return "".join((story * (tokens // len(story) + 1))[:tokens])


def ask(page: Page, text: str, limit_s: float) -> None:
    """Sends `text` and waits until the answer has ended."""
    asked = page.locator("#conversation .turn-user").count()
    page.fill("#message textarea", text)
    page.click("#send")
    page.wait_for_function(
        """asked => document.querySelectorAll("#conversation .turn-user").length > asked
            && !document.querySelector("#conversation .is-streaming")""",
        arg=asked,
        timeout=1000 * limit_s,
    )
    page.wait_for_selector("#send:enabled")


def measure(page: Page, engine: PacedEngine, limit_s: float) -> Measured:
    """One answer of `engine`, in a page that it answers."""
    page.evaluate(OBSERVE)
    ask(page, "Tell me a long story.", limit_s)
    rounds = len(engine.due)
    page.wait_for_function("count => window.lag.shown.length >= count", arg=rounds, timeout=10_000)
    lag = page.evaluate("window.lag")
    lags = [shown - 1000 * due for shown, due in zip(lag["shown"], engine.due, strict=True)]
    return Measured(lags, lag["nodes"], lag["batches"], lag["removed"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tokens", type=int, default=2000)
    options.add_argument("--rounds-per-second", type=float, default=40)
    options.add_argument("--answers-before", type=int, default=0, help="answers already in the conversation")
    asked = options.parse_args()
    engine = PacedEngine(text=text_of(asked.tokens), round_s=0)
    with replayed_page(engine) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_selector("#status [data-state=ready]")
        for _ in range(asked.answers_before):
            ask(page, "Tell me a long story.", 120)
        engine.round_s = 1 / asked.rounds_per_second
        measured = measure(page, engine, 60 + asked.tokens / asked.rounds_per_second)
        version = chromium.version
        chromium.close()
    lags = measured.lags
    print(
        f"{asked.tokens} tokens in {len(lags)} rounds, {asked.rounds_per_second:g} rounds/s, "
        f"{asked.answers_before} answers before; Chromium {version}, {os.cpu_count()} cores"
    )
    print(
        f"lag in ms from due to painted: median {statistics.median(lags):.0f}, "
        f"95 % {statistics.quantiles(lags, n=20)[-1]:.0f}, max {max(lags):.0f}, "
        f"last tenth {statistics.median(lags[-len(lags) // 10 :]):.0f}, last round {lags[-1]:.0f}"
    )
    print(f"nodes added {measured.nodes}, removed {measured.removed}, in {measured.batches} batches")


if __name__ == "__main__":
    main()
