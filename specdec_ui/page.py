"""The whole page: header, load bar, tabs, and the listeners that connect them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.themes import Default as DefaultTheme

import specdec_core as sd

from .api import endpoints as api
from .chat.tab import ChatTab, FirstLoad, chat_tab
from .compare.tab import CompareTab, compare_tab
from .loading import bar as load_bar, handlers as load_handlers
from .loading.bar import LoadBar
from .loading.own_pair import OwnPair
from .pair_check import handlers as pair_check_handlers
from .pair_check.tab import PairCheckTab, pair_check_tab
from .parts import terms
from .parts.assets import FAVICON, STYLESHEETS, sources
from .parts.frames import QUIET, LoadFrame
from .parts.settings_panel import CHAT_PANEL
from .parts.trace_words import script_data
from .state.holder import EngineHolder
from .state.presets import Presets
from .state.visitors import Visitor, Visitors
from .traces.tab import traces_tab

REFRESH_S = 4.0
"""Time between an open page's checks for a pair that another visitor has loaded."""

_HEADER = """
<header class="page-header">
  <h1>SpecDec Chat</h1>
  <p>A small model, the <em>drafter</em>, drafts the next few tokens (words or parts of words); the large one,
  the <em>target</em>, tests all of them in one go and keeps those that it could have written itself. You get
  the large model's answer, sooner, and see here what was kept and what was thrown away.</p>
</header>
"""


@dataclass(frozen=True)
class Operator:
    """Decisions of the person who runs the server: a fixed preset, or no changes once one is loaded."""

    preset: str | None = None
    lock: bool = False


def build_page(holder: EngineHolder, presets: Presets, operator: Operator | None = None) -> gr.Blocks:
    """Return the page, ready to be launched with `launch_options()`."""
    operator = operator or Operator()
    visitors = Visitors()
    on = _Listeners(holder, presets, visitors, operator)
    with gr.Blocks(title="SpecDec Chat", fill_width=True, analytics_enabled=False) as page:
        gr.HTML(
            _HEADER + terms.BOX,
            js_on_load=sources(script_data()) + terms.SCRIPT,
            apply_default_css=False,
            elem_id="header",
        )
        bar = load_bar.load_bar(presets, operator.preset)
        start = presets.usable.get(str(bar.preset.value))
        examples = list(start.examples) if start else []
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with gr.Tab("Chat", id="chat"):
                chat = chat_tab(holder, visitors, examples)
            compare = compare_tab(holder, visitors, presets, examples[0] if examples else "")
            pairs = pair_check_tab(holder, visitors, on.locked)
            traces_tab(visitors)
        _connect(page, on, bar, chat, compare, pairs)
        api.add_endpoints(page, holder, visitors, presets, on.locked)
    return page


def _connect(
    page: gr.Blocks,
    on: _Listeners,
    bar: LoadBar,
    chat: ChatTab,
    compare: CompareTab,
    pairs: PairCheckTab,
) -> None:
    """Attach the listeners of loads, of the page's own events and of its timer."""
    parts = [*bar.parts, bar.about, *chat.settings, chat.system, chat.examples]
    chat.connect_sending(FirstLoad(on.presets, bar.preset, parts, on.updates))
    page.load(on.open, bar.preset, parts, **QUIET)
    bar.preset.input(on.choose, bar.preset, [bar.about, chat.examples], queue=False, **QUIET)
    # Before the loads: Gradio runs a button's listeners one after the other, so that this one would wait for
    # the end of the load and wipe away what was said since.
    gr.on([bar.load.click, pairs.load.click], lambda: "", outputs=chat.notice, queue=False, **QUIET)
    preset_load = bar.load.click(on.load, bar.preset, parts, **QUIET)
    bar.cancel.click(on.cancel_load, outputs=bar.cancel, queue=False, **QUIET)
    pair_load = pairs.load.click(on.load_pair, [pairs.passed, bar.preset], [*parts, pairs.progress], **QUIET)
    pair_load.then(on.pair_loaded, pairs.passed, pairs.about, queue=False, **QUIET)
    for load in (preset_load, pair_load):
        load.then(compare.follow, compare.followed, compare.parts, queue=False, **QUIET)
    gr.Timer(REFRESH_S).tick(on.tick, bar.preset, parts, queue=False, **QUIET)
    page.unload(on.leave)


@dataclass(frozen=True)
class _Listeners:
    """Listeners of loads and of the page's own events.

    Most return updates of the load bar, the chosen preset's description, and the Chat tab's settings, system
    message and examples.
    """

    holder: EngineHolder
    presets: Presets
    visitors: Visitors
    operator: Operator

    def locked(self) -> bool:
        """Return True where visitors cannot load a pair."""
        return self.operator.preset is not None or (self.operator.lock and self.holder.current is not None)

    def open(self, request: gr.Request, chosen: str) -> list[Any]:
        return self.updates(load_handlers.current(self._visitor(request), self.holder), chosen)

    def tick(self, request: gr.Request, chosen: str) -> list[Any]:
        return self.updates(load_handlers.changed(self._visitor(request), self.holder), chosen)

    def leave(self, request: gr.Request) -> None:
        self.visitors.leave(request.session_hash)

    def choose(self, chosen: str) -> list[Any]:
        """Return the description of the chosen preset, and its examples while nothing is loaded."""
        preset = self.presets.usable.get(chosen)
        examples = gr.skip()
        if preset is not None and self.holder.current is None:
            examples = _examples(preset.examples)
        return [self._about(preset), examples]

    def load(self, request: gr.Request, chosen: str) -> Iterator[list[Any]]:
        for frame in self._load(request, self.presets, chosen):
            yield self.updates(frame, chosen)

    def load_pair(self, request: gr.Request, pair: OwnPair | None, chosen: str) -> Iterator[list[Any]]:
        if pair is None:
            return
        preset = self._own_preset(pair)
        presets = Presets({preset.name: preset})
        for frame in self._load(request, presets, preset.name):
            yield [*self.updates(frame, chosen), pair_check_handlers.load_progress(frame)]

    def pair_loaded(self, pair: OwnPair | None) -> str:
        return self._about(None if pair is None else self._own_preset(pair))

    def cancel_load(self, request: gr.Request) -> Any:
        return load_bar.cancelling(load_handlers.cancel(self._visitor(request), self.holder))

    def _visitor(self, request: gr.Request) -> Visitor:
        return self.visitors.of(request.session_hash)

    def _own_preset(self, pair: OwnPair) -> sd.Preset:
        loaded = self.holder.current
        return pair.preset(loaded.preset if loaded else None)

    def _about(self, preset: sd.Preset | None) -> str:
        return load_bar.about(preset, self.holder.current, len(self.visitors) - 1, self.locked())

    def _load(self, request: gr.Request, presets: Presets, name: str) -> Iterator[LoadFrame]:
        return load_handlers.load(self._visitor(request), self.holder, presets, name, self.locked())

    def updates(self, frame: LoadFrame, chosen: str) -> list[Any]:
        """Convert a frame of a load; `chosen` is the preset in the bar."""
        about = gr.skip()
        if frame.status is not None and not frame.loading:
            about = self._about(self.presets.usable.get(chosen))
        examples = gr.skip() if frame.examples is None else _examples(frame.examples)
        takes = frame.takes_system_message
        system = gr.skip() if takes is None else gr.update(visible=takes)
        return [*load_bar.updates(frame, self.locked()), about, *_settings(frame), system, examples]


def _examples(texts: Sequence[str]) -> gr.Dataset:
    return gr.Dataset(samples=[[text] for text in texts])


def _settings(frame: LoadFrame) -> list[Any]:
    """Updates of the Chat tab's settings. The switch of thinking is shown where the template has one."""
    if frame.settings is None:
        return [gr.skip()] * len(CHAT_PANEL.fields)
    settings = list(frame.settings)
    at = CHAT_PANEL.fields.index("thinking")
    settings[at] = gr.update(value=settings[at], visible=frame.can_switch_thinking)
    return settings


def launch_options() -> dict[str, Any]:
    """Return theme, stylesheets and icon for `Blocks.launch`; no font or script of another host."""
    theme = DefaultTheme(
        primary_hue="indigo",
        neutral_hue="slate",
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
    return {"theme": theme, "css_paths": STYLESHEETS, "favicon_path": FAVICON, "footer_links": ["api"]}
