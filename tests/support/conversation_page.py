"""The conversation view alone in a browser, without a server; tests pass it the lines of a transcript."""

from contextlib import contextmanager

from specdec_ui.chat.conversation_view import conversation_view
from specdec_ui.parts.assets import STYLESHEETS, json_line, sources
from specdec_ui.parts.figures import FIGURES
from specdec_ui.parts.trace_words import script_data

_HARNESS = """async ([template, modules, script]) => {
    document.body.innerHTML =
        '<div class="gradio-container"><div id="conversation"></div></div>';
    const element = document.querySelector('#conversation');
    element.innerHTML = template;
    const props = {value: ''}, watchers = [];
    window.events = [];
    window.requestAnimationFrame = (then) => then();  // draws each piece at once, so that it can be timed
    Function(modules)();
    Function('element', 'props', 'watch', 'trigger', script)(
        element, props, (name, then) => watchers.push(then), (...event) => window.events.push(event));
    window.show = value => { props.value = value; watchers.forEach(then => then()); };
    await window.specdecImport('conversation.js');  // the script mounts the view first: it asked first
}"""
_IN_PIECES = """([before, pieces, after]) => {
    let value = before;
    const frames = [];
    for (const piece of pieces) {
        value += JSON.stringify({event: 'text', text: piece}) + '\\n';
        const began = performance.now();
        window.show(value);
        frames.push(performance.now() - began);
    }
    window.show(value + after);
    return frames;
}"""
QUESTION = json_line(event="user", text="Write.") + json_line(event="answer", who="A pair", figures=FIGURES)
END = json_line(event="end", remarks=[])


def open_conversation(page):
    """Open the empty view with the page's stylesheets; every request is aborted."""
    page.route("**/*", lambda route: route.abort())
    view = conversation_view()
    page.set_content(
        "<!doctype html><html lang=en><head><title>Conversation</title></head><body></body></html>"
    )
    for sheet in STYLESHEETS:
        page.add_style_tag(content=sheet.read_text(encoding="utf-8"))
    page.evaluate(_HARNESS, [view.html_template, sources(script_data()), view.js_on_load])


@contextmanager
def conversation_in(browser):
    """The view, 700 pixels wide; nothing in it may fail, open a dialog or ask for anything."""
    context = browser.new_context(viewport={"width": 700, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    faults = []
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: faults.append(request.url))
    open_conversation(page)
    yield page
    context.close()
    assert faults == []


def stream(page, pieces, ended=True):
    """Show an answer piece by piece; return the milliseconds that each took."""
    return page.evaluate(_IN_PIECES, [QUESTION, list(pieces), END if ended else ""])


def answer_html(page):
    return page.locator(".turn-answer .turn-text").inner_html()
