"""Makes the README's picture: the page after an answer of the embedded pair.

.venv/bin/python -m tests.support.screenshot docs/page.png
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.support.running_app import CHROMIUM, running_app

SEED = 7
REQUEST = "Tell me a story about a boat."


def main(picture: str) -> None:
    log = Path(tempfile.mkdtemp()) / "app.log"
    with running_app(log) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1280, "height": 940}, color_scheme="light")
        page.goto(url)
        page.click("#load")
        page.wait_for_selector("#status [data-state=ready]", timeout=120_000)
        page.click("#settings button")
        page.get_by_label("Seed").fill(str(SEED))
        page.get_by_label("Seed").press("Tab")
        page.click("#settings button")
        for _ in range(2):  # the first answer after loading is slower than the following ones
            page.click("#clear")
            page.fill("#message textarea", REQUEST)
            page.click("#send")
            page.wait_for_selector("#conversation .turn-why", timeout=120_000)
            page.wait_for_selector("#send:enabled")
        page.wait_for_timeout(300)
        page.evaluate("document.querySelector('.token-flow').scrollTop = 0")
        page.locator("#token-view span.token[data-kind=rejected]").nth(9).hover()
        page.screenshot(path=picture)
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1])
