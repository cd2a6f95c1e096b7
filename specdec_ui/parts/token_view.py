"""The token view: every token of an answer as the target judged it, streamed round by round.

Knows the trace and the page's script; nothing of engines or conversations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from specdec_core.trace import Round

from .assets import json_line, view_script
from .terms import term

_ASKED = 60
"""Characters of a question by which its answer is found again."""

_REASON = 200

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
    CHOOSER
    <label class="token-hide"><input type="checkbox"> hide what was thrown away</label>
  </div>
  <div class="token-flow" role="group" tabindex="-1"
    aria-label="Tokens of LABEL; arrow keys move from token to token, Enter opens a round"></div>
  <div class="round-panel" role="group" tabindex="-1" aria-labelledby="NAME-round" hidden>
    <div class="round-head">
      <h3 class="round-title" id="NAME-round"></h3>
      <button type="button" class="round-before" aria-label="Previous round" title="Previous round">‹</button>
      <button type="button" class="round-after" aria-label="Next round" title="Next round">›</button>
      <button type="button" class="round-close" aria-label="Close the round" title="Close">×</button>
    </div>
    <p class="round-words" aria-live="polite"></p>
    <div class="round-scroll">
      <table class="round-tokens">
        <thead><tr><th scope="col">#</th><th scope="col">token</th><th scope="col">TARGET_P</th>
          <th scope="col">DRAFTER_Q</th><th scope="col">outcome</th></tr></thead>
        <tbody></tbody>
      </table>
    </div>
    <p class="round-rule"></p>
    <dl class="facts round-facts"></dl>
    <div class="round-bar" aria-hidden="true"><span></span><span></span><span></span></div>
  </div>
  <p class="token-empty">EMPTY</p>
  <div class="token-tip" id="NAME-tip" role="tooltip" hidden></div>
</section>
"""

_CHOOSER = '<select class="token-answers" aria-label="Answer that is shown" hidden></select>'

_EMPTY = """Send a message: each token of the answer appears here as it is drafted, tested and kept or thrown
    away. Point at a token to see what both models thought of it; click or tap it to see its whole round."""

SCRIPTS = ("lines.js", "token_text.js", "round_panel.js", "tokens.js")
"""What fills a section, in this order; the last one is the view itself."""


def section(name: str, title: str, label: str, empty: str, chooser: bool = False) -> str:
    """What tokens.js fills. `name` begins the ids in it; `label` says whose tokens they are; all are HTML.

    With a `chooser` the answers before the latest one can be looked at again.
    """
    parts = {
        "NAME": name,
        "TITLE": title,
        "LABEL": label,
        "EMPTY": empty,
        "CHOOSER": _CHOOSER if chooser else "",
        "TARGET_P": term("p, target"),
        "DRAFTER_Q": term("q, drafter"),
    }
    filled = _SECTION
    for part, html in parts.items():
        filled = filled.replace(part, html)
    return filled


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
    label: str = "the answer",
    empty: str = _EMPTY,
    chooser: bool = True,
) -> gr.HTML:
    """The component; its value is text made by the functions below, one answer at a time.

    An answer is sent once: the page keeps the latest answers of a conversation itself. The empty text clears
    them all.
    """
    return gr.HTML(
        value="",
        html_template=section(name, title, label, empty, chooser) + legend(),
        js_on_load=view_script(*SCRIPTS),
        apply_default_css=False,
        elem_id=elem_id,
    )


def answer_line(number: int, asked: str = "", settings: Mapping[str, Any] | None = None) -> str:
    """The first line of an answer: its place in the conversation, what was `asked`, and by which rule a
    draft stood under the `settings`. It takes the place of answers with this number or a higher one.
    """
    words = " ".join(asked.split())
    return json_line(
        answer=number,
        asked=words if len(words) <= _ASKED else words[: _ASKED - 1] + "…",
        rule=_rule(settings or {}),
    )


def round_line(rnd: Round) -> str:
    """One round: each token with its kind, text, p and q; gamma and why; draft, verify and overhead in ms."""
    tokens = [
        [token.kind, token.text, _shown(token.target_prob), _shown(token.drafter_prob)]
        for token in rnd.tokens
    ]
    return json_line(
        round=rnd.index,
        tokens=tokens,
        gamma=[rnd.gamma, rnd.gamma_reason[:_REASON]],
        ms=[_shown(1000 * seconds) for seconds in (rnd.draft_s, rnd.verify_s, rnd.overhead_s)],
    )


def end_line(reason: str) -> str:
    """The last line of an answer."""
    return json_line(end=reason)


def _rule(settings: Mapping[str, Any]) -> str:
    """How it was decided whether a draft stands, for a person who sees p and q."""
    if settings.get("gamma") == 0:
        return ""
    if settings.get("temperature") == 0:
        return "At temperature 0 a draft stands if the target would choose it too: p is 100 % or 0 %."
    return {
        "rejection": "A draft stands with the chance p ÷ q, and surely where p is larger than q.",
        "coupled": "A draft stands if the target, drawing with the same noise as the drafter, chose it too.",
    }.get(str(settings.get("verification")), "")


def _shown(figure: float | None) -> float | None:
    return None if figure is None else float(f"{figure:.4g}")
