"""Accessibility: axe-core's rules of WCAG 2.2, levels A and AA, on every tab, light and dark."""

import pytest

from tests.support.chat_page import choose, settle
from tests.support.running_app import ROOT
from tests.support.tab_page import tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
TABS = ("Chat", "Compare", "Pair check", "Traces")


def violations(page):
    """Return axe's findings, a line for each rule and element."""
    page.evaluate(
        """tags => {
            window.found = null;
            const keep = (found) => (window.found = found);
            axe.run({runOnly: tags}).then((all) => keep(all.violations), (error) => keep(String(error)));
        }""",
        TAGS,
    )
    found = page.wait_for_function("window.found", timeout=60_000).json_value()
    assert isinstance(found, list), found
    return [f"{rule['id']}: {node['html'][:300]}" for rule in found for node in rule["nodes"]]


@pytest.fixture(scope="module")
def full_page(shared_page):
    """Everything is there and open: an answer with a round of it, a comparison, a checked pair, a trace."""
    page = shared_page
    choose(page, "stories")
    page.click("#load")
    page.wait_for_selector("#status [data-state=ready]", timeout=120_000)
    page.fill("#message textarea", "Tell me a story about a dog.")
    page.click("#send")
    page.wait_for_selector("#token-view .token[data-kind=rejected]")
    page.wait_for_selector("#stop:disabled")
    page.wait_for_selector("#send:enabled")
    page.click("#settings button")
    page.locator("#token-view .token").nth(2).click()
    page.wait_for_selector("#token-view .round-panel:visible")
    tab(page, "Compare")
    page.click("#compare-start")
    page.wait_for_selector("#compare-headline .result", timeout=120_000)
    page.locator(".race-skip").evaluate("button => button.click()")
    page.click("#compare-list button")
    tab(page, "Pair check")
    for role in ("target", "drafter"):
        page.fill(f"#pair-{role} :is(input, textarea)", str(ROOT / "presets" / "stories" / role))
    page.click("#pair-start")
    page.wait_for_selector("#pair-report:has-text('can work together')")
    tab(page, "Traces")
    page.wait_for_selector("#trace-view .token")
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    return page


UNMARKED = """() => {
    const look = (element) => {
        const style = getComputedStyle(element);
        return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1 ? 1 : style.boxShadow;
    };
    const mark = (element) => look(element.matches("[role=combobox]") ? element.closest(".wrap") : element);
    const unmarked = [];
    const focusable = "a, button, input, select, summary, textarea, [tabindex='0']";
    for (const each of document.querySelectorAll(focusable)) {
        if (!each.checkVisibility() || each.disabled) continue;
        document.activeElement.blur();
        const before = mark(each);
        each.focus({ focusVisible: true });
        const after = mark(each);
        if (document.activeElement === each && after === before) unmarked.push(each.outerHTML.slice(0, 200));
    }
    return unmarked;
}"""


def test_every_control_shows_that_it_has_the_focus_light_and_dark(full_page):
    found = {}
    full_page.add_style_tag(content="* { transition: none !important; }")
    for scheme in ("light", "dark"):
        full_page.emulate_media(color_scheme=scheme)
        full_page.wait_for_function(
            "dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark"
        )
        for name in TABS:
            tab(full_page, name)
            settle(full_page)
            found[f"{name}, {scheme}"] = full_page.evaluate(UNMARKED)
    assert not {place: unmarked for place, unmarked in found.items() if unmarked}


def test_no_violation_on_any_tab_light_or_dark_wide_or_narrow(full_page):
    from axe_playwright_python.base import AXE_SCRIPT

    full_page.evaluate(f"{AXE_SCRIPT}; undefined")
    found = {}
    for scheme, width in (("light", 1280), ("dark", 390)):
        full_page.emulate_media(color_scheme=scheme)
        full_page.set_viewport_size({"width": width, "height": 844})
        full_page.wait_for_function(
            "dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark"
        )
        for name in TABS:
            tab(full_page, name)
            settle(full_page)  # colours fade to those of the other scheme
            found[f"{name}, {scheme}, {width} px"] = violations(full_page)
    assert not {place: rules for place, rules in found.items() if rules}
