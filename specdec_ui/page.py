"""The whole page: header, what is loaded, the tabs, and the wiring between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from .api import endpoints as api
from .chat.tab import chat_tab
from .compare.tab import compare_tab
from .loading import bar as load_bar, handlers as load_handlers
from .loading.own_pair import OwnPair
from .pair_check.tab import pair_check_tab
from .parts import terms
from .parts.assets import FAVICON, STYLESHEETS, sources
from .parts.frames import LoadFrame
from .state.holder import EngineHolder
from .state.presets import Presets
from .state.visitors import Visitors
from .traces.tab import traces_tab

REFRESH_S = 4.0
"""How often an open page asks whether somebody has replaced the pair."""

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
    """What the person who runs the server has decided: a fixed preset, or no changes once one is loaded."""

    preset: str | None = None
    lock: bool = False


def build_page(holder: EngineHolder, presets: Presets, operator: Operator | None = None) -> gr.Blocks:
    """The page, ready to be launched with `launch_options()`."""
    operator = operator or Operator()
    visitors = Visitors()

    def locked() -> bool:
        return operator.preset is not None or (operator.lock and holder.current is not None)

    with gr.Blocks(title="SpecDec Chat", fill_width=True, analytics_enabled=False) as page:
        gr.HTML(
            _HEADER + terms.BOX,
            js_on_load=sources() + terms.SCRIPT,
            apply_default_css=False,
            elem_id="header",
        )
        bar = load_bar.load_bar(presets, operator.preset)
        start = presets.usable.get(bar.preset.value)
        examples = list(start.examples) if start else []
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):
            with gr.Tab("Chat", id="chat"):
                chat = chat_tab(holder, visitors, examples)
            compare = compare_tab(holder, visitors, presets, examples[0] if examples else "")
            pairs = pair_check_tab(holder, visitors, locked)
            traces_tab(visitors)
        timer = gr.Timer(REFRESH_S)

        def updates(frame: LoadFrame, chosen: str) -> list[Any]:
            about = gr.skip()
            if frame.status is not None and not frame.loading:
                about = on_choose(chosen)
            settings = [gr.skip()] * len(chat.settings) if frame.settings is None else frame.settings
            examples = (
                gr.skip() if frame.examples is None else gr.Dataset(samples=[[x] for x in frame.examples])
            )
            takes = frame.takes_system_message
            system = gr.skip() if takes is None else gr.update(visible=takes)
            return [*load_bar.updates(frame, locked()), about, *settings, system, examples]

        def on_load(request: gr.Request, chosen: str) -> Iterator[list[Any]]:
            visitor = visitors.of(request.session_hash)
            for frame in load_handlers.load(visitor, holder, presets, chosen, locked()):
                yield updates(frame, chosen)

        def on_cancel_load(request: gr.Request) -> Any:
            return load_bar.cancelling(load_handlers.cancel(visitors.of(request.session_hash), holder))

        def own_preset(passed: OwnPair) -> Any:
            return passed.preset(holder.current.preset if holder.current else None)

        def on_load_pair(request: gr.Request, passed: OwnPair | None, chosen: str) -> Iterator[list[Any]]:
            if passed is None:
                return
            preset = own_preset(passed)
            visitor = visitors.of(request.session_hash)
            own = Presets({preset.name: preset})
            for frame in load_handlers.load(visitor, holder, own, preset.name, locked()):
                yield updates(frame, chosen)

        def on_pair_loaded(passed: OwnPair | None) -> str:
            preset = None if passed is None else own_preset(passed)
            return load_bar.about(preset, holder.current, len(visitors) - 1, locked())

        def on_open(request: gr.Request, chosen: str) -> list[Any]:
            return updates(load_handlers.current(visitors.of(request.session_hash), holder), chosen)

        def on_tick(request: gr.Request, chosen: str) -> list[Any]:
            return updates(load_handlers.changed(visitors.of(request.session_hash), holder), chosen)

        def on_choose(chosen: str) -> str:
            return load_bar.about(presets.usable.get(chosen), holder.current, len(visitors) - 1, locked())

        def on_leave(request: gr.Request) -> None:
            visitors.leave(request.session_hash)

        parts = [*bar.parts, bar.about, *chat.settings, chat.system, chat.examples]
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(on_open, bar.preset, parts, **quiet)
        bar.preset.input(on_choose, bar.preset, bar.about, queue=False, **quiet)
        preset_load = bar.load.click(on_load, bar.preset, parts, **quiet)
        bar.cancel.click(on_cancel_load, outputs=bar.cancel, queue=False, **quiet)
        pair_load = pairs.load.click(on_load_pair, [pairs.passed, bar.preset], parts, **quiet)
        pair_load.then(on_pair_loaded, pairs.passed, pairs.about, queue=False, **quiet)
        for load in (preset_load, pair_load):
            load.then(compare.follow, compare.parts[:2], compare.parts, queue=False, **quiet)
        timer.tick(on_tick, bar.preset, parts, queue=False, **quiet)
        page.unload(on_leave)
        api.add_endpoints(holder, visitors, presets, locked)
    return page


def launch_options() -> dict[str, Any]:
    """Theme, stylesheet and queue limits for `Blocks.launch`; no font or script of another host."""
    theme = gr.themes.Default(
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
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
    return {"theme": theme, "css_paths": STYLESHEETS, "favicon_path": FAVICON, "footer_links": ["api"]}
