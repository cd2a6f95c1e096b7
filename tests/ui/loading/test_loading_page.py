"""Loading from a Hub in Chromium: progress, Cancel, gated models, and the warning without a GPU."""

import re
from pathlib import Path

import pytest

from tests.support.chat_page import choose, finish, load, send, set_number
from tests.support.hub_server import COMMIT, running_hub
from tests.support.running_app import running_app

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PRESET = """\
title = "{title}"
description = "Two small models on a Hub of our own."
license = "Licence of the tests"
license_page = "https://huggingface.co/{target}"
gated = {gated}
download_gb = 0.01

[target]
model = "{target}"
quantization = "nf4"

[drafter]
model = "{drafter}"
quantization = "nf4"
"""
TOKEN = "hf_thesecretofthistest"


def write_preset(folder, name, target, drafter, gated=False):
    text = PRESET.format(title=f"The {name} pair", target=target, drafter=drafter, gated=str(gated).lower())
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def hub(pair_folders):
    """A Hub on this machine with an open pair and a gated one."""
    with running_hub() as server:
        for owner in ("open", "gated"):
            for role, folder in zip(("target", "drafter"), pair_folders, strict=True):
                server.repositories[f"{owner}/{role}"] = Path(folder)
        for role in ("target", "drafter"):
            server.gated[f"gated/{role}"] = set()
        yield server


@pytest.fixture(scope="module")
def address(tmp_path_factory, hub):
    """The page of a server that finds its models on that Hub, with a token that opens nothing."""
    folder = tmp_path_factory.mktemp("loading")
    presets = folder / "presets"
    presets.mkdir()
    write_preset(presets, "from-hub", "open/target", "open/drafter")
    write_preset(presets, "closed", "gated/target", "gated/drafter", gated=True)
    environment = {
        "HF_ENDPOINT": hub.address,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "hf"),
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
        "SPECDEC_PRESETS": str(presets),
    }
    with running_app(folder / "app.log", **environment) as url:
        yield url
    assert TOKEN not in (folder / "app.log").read_text()


def test_a_download_can_be_cancelled_and_taken_up_again(page, hub):
    load(page)
    assert not page.locator("#load-cancel").is_visible()
    size = (hub.repositories["open/target"] / "model.safetensors").stat().st_size
    hub.stalled.add("model.safetensors")
    hub.cuts["model.safetensors"] = [size // 2]
    choose(page, "from-hub")
    page.click("#load")
    page.wait_for_selector("#status [data-state=loading]:has-text('Downloading open/')", timeout=30_000)
    assert hub.stalling.wait(30)
    page.click("#load-cancel")
    page.wait_for_selector("#load-cancel:disabled:has-text('Cancelling')")
    hub.released.set()
    page.wait_for_selector("#status [data-state=ready]:has-text('Loading from-hub was cancelled')")
    assert "stories is loaded" in page.inner_text("#status")
    page.wait_for_selector("#load-cancel", state="hidden")
    set_number(page, "Longest answer", 5)
    send(page, "Tell me a story about a dog.")
    finish(page)
    page.click("#load")
    page.wait_for_selector("#status [data-state=ready]:has-text('from-hub is loaded')", timeout=60_000)


def test_what_is_loaded_is_visible(page):
    load(page, "from-hub")
    facts = page.inner_text("#status .facts")
    for fact in (r"precision\s+float32", r"device\s+CPU", r"runner\s+\w+", r"context\s+512", r"memory\s+\d"):
        assert re.search(fact, facts), fact
    assert re.search(r"open/target \(.*parameters\), drafter open/drafter", page.inner_text("#status"))


def test_a_gated_pair_without_access_says_what_to_accept_and_where_the_token_goes(page, hub):
    load(page)
    load(page, "closed", "refused")
    said = page.inner_text("#status")
    assert "gated/target is gated" in said
    assert "HF_TOKEN" in said
    assert "stories is still loaded" in said
    assert TOKEN not in page.content()
    link = page.locator("#status .status-error a").first
    assert link.get_attribute("href") == f"{hub.address}/gated/target"


def test_without_a_gpu_a_pair_for_one_says_what_will_happen_before_it_is_loaded(page):
    load(page)
    choose(page, "llama-3.2")
    page.wait_for_selector("#about-preset:has-text('There is no GPU here')")
    said = page.inner_text("#about-preset")
    assert re.search(r"float32 on the CPU", said)
    assert re.search(r"about 18 GB of memory", said)
    assert "stories" in said
    choose(page, "stories")
    page.wait_for_selector("#about-preset:not(:has-text('There is no GPU here'))")


def check_pair(page, **fields):
    page.get_by_role("tab", name="Pair check").click()
    for field, value in fields.items():
        page.fill(f"#pair-{field.replace('_', '-')} :is(input, textarea)", value)
    page.click("#pair-start")


def test_a_hub_pair_is_checked_at_a_revision_kept_and_loaded(page):
    check_pair(page, target="open/target", drafter="open/drafter", drafter_revision="v9")
    page.wait_for_selector("#pair-report:has-text('open/drafter has no revision')")
    assert not page.locator("#pair-load").is_visible()
    check_pair(page, drafter_revision=COMMIT)
    page.wait_for_selector("#pair-report:has-text('can work together')")
    assert f'revision = "{COMMIT}"' in page.input_value("#pair-toml textarea")
    page.click("#pair-load")
    page.wait_for_selector("#status [data-state=ready]:has-text('open/drafter')", timeout=60_000)


def test_a_check_of_a_gated_model_says_what_to_accept(page, hub):
    check_pair(page, target="gated/target", drafter="open/drafter")
    page.wait_for_selector("#pair-report:has-text('gated/target is gated')")
    said = page.inner_text("#pair-report")
    assert f"{hub.address}/gated/target" in said
    assert "HF_TOKEN" in said
    assert TOKEN not in page.content()
