"""The conversation view alone in a browser, fed with the lines that the page feeds it, without a server."""

from specdec_ui.chat.conversation_view import conversation_view
from specdec_ui.parts.assets import STYLESHEETS, json_line, sources
from specdec_ui.parts.figures import FIGURES

_HARNESS = """([template, files, script]) => {
    document.body.innerHTML =
        '<div class="gradio-container"><div id="conversation"></div></div>';
    const element = document.querySelector('#conversation');
    element.innerHTML = template;
    const props = {value: ''}, watchers = [];
    window.asked = [];
    window.requestAnimationFrame = (then) => then();  // each piece is shown, and its time is its own
    Function(files)();
    Function('element', 'props', 'watch', 'trigger', script)(
        element, props, (name, then) => watchers.push(then), (...event) => window.asked.push(event));
    window.show = value => { props.value = value; watchers.forEach(then => then()); };
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
ASKED = json_line(event="user", text="Write.") + json_line(event="answer", who="A pair", figures=FIGURES)
END = json_line(event="end", remarks=[])


def open_conversation(page):
    """The view, empty, with the page's stylesheets. Nothing on it can be fetched."""
    page.route("**/*", lambda route: route.abort())
    view = conversation_view()
    page.set_content(
        "<!doctype html><html lang=en><head><title>Conversation</title></head><body></body></html>"
    )
    for sheet in STYLESHEETS:
        page.add_style_tag(content=sheet.read_text(encoding="utf-8"))
    page.evaluate(_HARNESS, [view.html_template, sources(), view.js_on_load])


def stream(page, pieces, ended=True):
    """An answer that comes in these pieces; milliseconds that each took to show."""
    return page.evaluate(_IN_PIECES, [ASKED, list(pieces), END if ended else ""])


def answer_html(page):
    return page.locator(".turn-answer .turn-text").inner_html()
