"""Lanes of a comparison side by side, each in a token view: live, or replayed at the measured speeds.

Knows measurements and the page's scripts; nothing of engines. The browser keeps the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

import specdec_core as sd

from ..parts import token_view
from ..parts.assets import json_line, view_script
from .comparison import TITLES, Comparison, LaneAnswer

MOST_LANES = len(TITLES)
"""Lanes that the view has room for."""

_NOTES = {"assisted": "transformers does not say which tokens were drafts, so none is marked."}

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
    """Return the component; its value is made by `race` or a LiveRace."""
    lanes = "".join(
        f'<div class="race-lane" hidden><progress max="1" value="0" aria-hidden="true"></progress>'
        f'<p class="race-clock"></p><p class="race-note" hidden></p>'
        f"{token_view.section(f'race-{at}', 'Lane', f'lane {at + 1}', '')}</div>"
        for at in range(MOST_LANES)
    )
    return gr.HTML(
        value="",
        html_template=f'{_CONTROLS}<div class="race-lanes">{lanes}</div>'
        f'<details class="race-legend"><summary>What the marks mean</summary>{token_view.legend()}</details>',
        js_on_load=view_script("race.js"),
        apply_default_css=False,
        elem_id="compare-race",
    )


class LiveRace:
    """The view's value while lanes are decoded; `text` only grows. `count` differs from race to race."""

    def __init__(self, lanes: Sequence[tuple[str, sd.Settings]], count: int) -> None:
        self._count = count
        self._tracks = [_Track(at) for at in range(len(lanes))]
        titles = [title_of(name, settings) for name, settings in lanes]
        facts = [
            {"title": each, "most": settings.max_new_tokens}
            for each, (_, settings) in zip(titles, lanes, strict=True)
        ]
        self.text = json_line(race=count, live=True, lanes=facts)

    def add(self, lane: int, rnd: sd.Round) -> None:
        """Append a round of a lane."""
        self.text += self._tracks[lane].round(rnd)

    def finish(self, comparison: Comparison) -> str:
        """Return the text with the measurements at its end, which make it replayable, and with the lanes that
        did not run live.
        """
        late = list(enumerate(comparison.lanes))[len(self._tracks) :]
        return self.text + json_line(race=self._count, lanes=_facts(comparison)) + _lines(late)


def race(comparison: Comparison, count: int) -> str:
    """Return the view's value for finished lanes; `count` differs from race to race."""
    return json_line(race=count, lanes=_facts(comparison)) + _lines(enumerate(comparison.lanes))


def _lines(lanes: Iterable[tuple[int, LaneAnswer]]) -> str:
    """The rounds of finished lanes by index."""
    lines: list[str] = []
    for at, lane in lanes:
        lines += map(_Track(at).round, lane.rounds)
    return "".join(lines)


class _Track:
    """Writer of one lane's lines, each with its time in seconds of decoding."""

    def __init__(self, lane: int) -> None:
        self._lane = lane
        self._seconds = 0.0
        self._emitted = 0

    def round(self, rnd: sd.Round) -> str:
        self._seconds += rnd.seconds if rnd.index > 0 else 0.0
        self._emitted += len(rnd.emitted)
        text = self._line(token_view.round_line(rnd))
        if rnd.finish_reason is not None:
            text += self._line(token_view.end_line(rnd.finish_reason))
        return text

    def _line(self, line: str) -> str:
        return json_line(lane=self._lane, at=round(self._seconds, 6), emitted=self._emitted, line=line)


def _facts(comparison: Comparison) -> list[dict[str, Any]]:
    most = max(len(lane.emitted) for lane in comparison.lanes)
    return [
        {
            "title": title(lane),
            "seconds": lane.decoding_s * _scale(comparison, lane),
            "scale": _scale(comparison, lane),
            "most": most,
            "note": _NOTES.get(lane.name, ""),
        }
        for lane in comparison.lanes
    ]


def _scale(comparison: Comparison, lane: LaneAnswer) -> float:
    """Factor on the times of the answer, with which a replay has the speedup that was measured over many."""
    own_rate, rate = lane.stats.tokens_per_second, comparison.rate(lane)
    return own_rate / rate if own_rate and rate else 1.0


def title(lane: LaneAnswer) -> str:
    """Return the lane's title with its draft length."""
    return title_of(lane.name, lane.settings)


def title_of(name: str, settings: sd.Settings) -> str:
    """Return the title of a lane that has not started."""
    if name in ("plain", "generate", "llama_cpp"):
        return TITLES[name]
    gamma = "automatic gamma" if settings.gamma == "auto" else f"gamma {settings.gamma}"
    return f"{TITLES[name]}, {gamma}"
