"""Lanes of a comparison replayed side by side, each in a token view, at the pace at which they were decoded.

Knows measurements and the page's scripts; nothing of engines. The browser keeps the time.
"""

from __future__ import annotations

import gradio as gr

from . import token_view
from .assets import json_line, script
from .comparison import Comparison, Lane
from .figures import number

MOST_LANES = 3

_CONTROLS = """
<div class="race-controls" hidden>
  <label>Replay <select class="race-pace">
    <option value="1">at the true pace</option>
    <option value="0.25">4 times slower</option>
    <option value="0.1">10 times slower</option>
  </select></label>
  <button type="button" class="race-skip">Skip to the end</button>
  <button type="button" class="race-again">Again</button>
  <span class="race-why"></span>
</div>
"""


def race_view() -> gr.HTML:
    """The component; its value is what `race` makes."""
    lanes = "".join(
        f'<div class="race-lane" hidden><progress max="1" value="0" aria-hidden="true"></progress>'
        f'<p class="race-clock"></p>'
        f"{token_view.section(f'race-{at}', 'Lane', f'lane {at + 1}', '')}</div>"
        for at in range(MOST_LANES)
    )
    *shared, view = token_view.SCRIPTS
    tokens = f"function tokenView(element, followLines) {{\n{script(view)}\n}}\n"
    return gr.HTML(
        value="",
        html_template=f'{_CONTROLS}<div class="race-lanes">{lanes}</div>'
        f'<details class="race-legend"><summary>What the marks mean</summary>{token_view.legend()}</details>',
        js_on_load=script(*shared) + tokens + script("race.js"),
        apply_default_css=False,
        elem_id="compare-race",
    )


def race(comparison: Comparison, count: int) -> str:
    """The view's value; `count` tells one comparison from the next."""
    most = max(len(lane.emitted) for lane in comparison.lanes)
    facts = [
        {
            "title": title(lane),
            "seconds": lane.decoding_s,
            "rate": number(lane.stats.tokens_per_second),
            "most": most,
        }
        for lane in comparison.lanes
    ]
    lines = [json_line(race=count, lanes=facts)]
    for at, lane in enumerate(comparison.lanes):
        seconds, emitted = 0.0, 0
        for rnd in lane.rounds:
            seconds += rnd.seconds if rnd.index > 0 else 0.0
            emitted += len(rnd.emitted)
            line = token_view.round_line(rnd)
            lines.append(json_line(lane=at, at=round(seconds, 6), emitted=emitted, line=line))
        end = token_view.end_line(lane.rounds[-1].finish_reason)
        lines.append(json_line(lane=at, at=round(seconds, 6), emitted=emitted, line=end))
    return "".join(lines)


def title(lane: Lane) -> str:
    """The lane's name with its draft length."""
    if lane.name == "plain":
        return lane.title
    gamma = "automatic gamma" if lane.settings.gamma == "auto" else f"gamma {lane.settings.gamma}"
    return f"{lane.title}, {gamma}"
