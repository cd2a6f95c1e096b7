"""The token view: every token of an answer as the target judged it, streamed round by round.

Knows the trace and the page's script; nothing of engines or conversations.
"""

from __future__ import annotations

import gradio as gr

from specdec_core.trace import Round

from .assets import json_line, script

LEGEND = (
    ("accepted", "a draft that the target tested and kept"),
    ("rejected", "a draft that it tested and threw away"),
    ("untested", "drafted after a rejected token, so thrown away without a test"),
    ("correction", "the target's own token in place of the rejected one"),
    ("bonus", "the target's own token after a round in which every draft stood"),
    ("plain", "the target's own token where nothing was drafted, as at the start"),
)

_SECTION = """
<section class="token-section" aria-labelledby="NAME-title">
  <div class="token-head">
    <h2 id="NAME-title">TITLE</h2>
    <label class="token-hide"><input type="checkbox"> hide what was thrown away</label>
  </div>
  <div class="token-flow" role="group" tabindex="-1"
    aria-label="Tokens of LABEL; arrow keys move from token to token"></div>
  <p class="token-empty">EMPTY</p>
  <div class="token-tip" id="NAME-tip" role="tooltip" hidden></div>
</section>
"""

_EMPTY = """Send a message: each token of the answer appears here as it is drafted, tested and kept or thrown
    away. Point at a token, or move to it with the arrow keys, to see what both models thought of it."""


def section(name: str, title: str, label: str, empty: str) -> str:
    """What tokens.js fills. `name` begins the ids in it; `label` says whose tokens they are; all are HTML."""
    return (
        _SECTION.replace("NAME", name).replace("TITLE", title).replace("LABEL", label).replace("EMPTY", empty)
    )


def legend() -> str:
    """What the marks mean, as HTML."""
    rows = "".join(
        f'<div><dt><span class="token-sample" data-kind="{kind}">'
        f'<span class="token-body">{kind}</span></span></dt><dd>{meaning}</dd></div>'
        for kind, meaning in LEGEND
    )
    return f'<dl class="token-legend" aria-label="What the marks mean">{rows}</dl>'


def token_view(
    elem_id: str = "token-view",
    name: str = "token",
    title: str = "How it was made",
    label: str = "the latest answer",
    empty: str = _EMPTY,
) -> gr.HTML:
    """The component; its value is text that `answer_line`, `round_line` and `end_line` make."""
    return gr.HTML(
        value="",
        html_template=section(name, title, label, empty) + legend(),
        js_on_load=script("lines.js", "tokens.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def answer_line(number: int) -> str:
    """The first line: it tells one answer's tokens from the next one's."""
    return json_line(answer=number)


def round_line(rnd: Round) -> str:
    """One round: each token with its kind, text, p and q."""
    tokens = [
        [token.kind, token.text, _shown(token.target_prob), _shown(token.drafter_prob)]
        for token in rnd.tokens
    ]
    return json_line(round=rnd.index, tokens=tokens)


def end_line(reason: str) -> str:
    """The last line."""
    return json_line(end=reason)


def _shown(probability: float | None) -> float | None:
    return None if probability is None else float(f"{probability:.4g}")
