"""Lag of the token view behind the rounds: a replayed answer at a steady pace, in Chromium.

.venv/bin/python -m tests.support.pace [--tokens 2000] [--rounds-per-second 40] [--answers-before 0]
"""

import argparse
import os
import statistics
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

from playwright.sync_api import Page, sync_playwright

import specdec_core as sd
from tests.support.chat_page import ask
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
        const added = records.flatMap((record) => [...record.addedNodes]);
        const rounds = added.filter((node) => node.nodeType === Node.ELEMENT_NODE);
        lag.batches += 1;
        for (const record of records) lag.removed += record.removedNodes.length;
        for (const round of rounds) lag.nodes += 1 + round.querySelectorAll("*").length;
        afterPaint(() => rounds.forEach(() => lag.shown.push(Date.now())));
    }).observe(flow, { childList: true });
}
"""


@dataclass
class PacedEngine(ReplayEngine):
    """A replay at a steady pace: each round is due at a time, so that small delays do not add up."""

    round_s: float = 0.025
    due: list[float] = field(default_factory=list)

    def rounds(self, rounds: list[sd.Round], cancel: threading.Event) -> Generator[sd.Round, None, None]:
        self.due = []
        start = time.time()
        for at, rnd in enumerate(super().rounds(rounds, cancel)):
            self.due.append(start + at * self.round_s)
            time.sleep(max(0.0, self.due[-1] - time.time()))
            yield rnd


@dataclass(frozen=True)
class Measured:
    """Lag of each round in ms, from due to painted; numbers of nodes added to the token view, of batches of
    them, and of nodes removed.
    """

    lags: list[float]
    nodes: int
    batches: int
    removed: int


def text_of(tokens: int) -> str:
    """Return a text of that many tokens."""
    story = pieces(STORY + " ")
    return "".join((story * (tokens // len(story) + 1))[:tokens])


def measure(page: Page, engine: PacedEngine, limit_s: float) -> Measured:
    """Measure one answer of `engine`, in a page of its own."""
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
    arguments = options.parse_args()
    engine = PacedEngine(text=text_of(arguments.tokens), round_s=0)
    with replayed_page(engine) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        page.goto(url)
        page.wait_for_selector("#status [data-state=ready]")
        for _ in range(arguments.answers_before):
            ask(page, "Tell me a long story.")
        engine.round_s = 1 / arguments.rounds_per_second
        measured = measure(page, engine, 60 + arguments.tokens / arguments.rounds_per_second)
        version = chromium.version
        chromium.close()
    lags = measured.lags
    print(
        f"{arguments.tokens} tokens in {len(lags)} rounds, {arguments.rounds_per_second:g} rounds/s, "
        f"{arguments.answers_before} answers before; Chromium {version}, {os.cpu_count()} cores"
    )
    print(
        f"lag in ms from due to painted: median {statistics.median(lags):.0f}, "
        f"95 % {statistics.quantiles(lags, n=20)[-1]:.0f}, max {max(lags):.0f}, "
        f"last tenth {statistics.median(lags[-len(lags) // 10 :]):.0f}, last round {lags[-1]:.0f}"
    )
    print(f"nodes added {measured.nodes}, removed {measured.removed}, in {measured.batches} batches")


if __name__ == "__main__":
    main()
