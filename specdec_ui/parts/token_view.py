"""Token view: every token of an answer with the target's verdict on it, streamed round by round.

Knows the trace and the page's script; nothing of engines or conversations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

import specdec_core as sd

from .assets import json_line, view_script
from .terms import term
from .trace_words import TOKEN_KINDS

_QUESTION_CHARACTERS = 60
"""Length of a question in the list of answers."""

_REASON_CHARACTERS = 200

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


def section(name: str, title: str, label: str, empty: str, chooser: bool = False) -> str:
    """Return the HTML that tokens.js fills. All arguments are HTML: `name` is the prefix of the ids, `label`
    the name of the answer for screen readers. A `chooser` selects an earlier answer.
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
    """Return the legend of token kinds as HTML."""
    rows = "".join(
        f'<div><dt><span class="token-sample" data-kind="{kind}">'
        f'<span class="token-body">{kind}</span></span></dt><dd>{words.meaning}</dd></div>'
        for kind, words in TOKEN_KINDS.items()
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
    """Create the component. Its value is one answer, as lines made by the functions below.

    The browser keeps the latest answers of a conversation, so each is sent once. An empty value clears them.
    """
    return gr.HTML(
        value="",
        html_template=section(name, title, label, empty, chooser) + legend(),
        js_on_load=view_script("tokens.js"),
        apply_default_css=False,
        elem_id=elem_id,
    )


def answer_line(number: int, question: str = "", settings: Mapping[str, Any] | None = None) -> str:
    """Return the first line of an answer: its number in the conversation, its question, and the rule of
    verification under the `settings`. It replaces answers with this number or a higher one.
    """
    line = " ".join(question.split())
    return json_line(
        answer=number,
        asked=line if len(line) <= _QUESTION_CHARACTERS else line[: _QUESTION_CHARACTERS - 1] + "…",
        rule=_rule(settings or {}),
    )


def round_line(rnd: sd.Round) -> str:
    """Return the line of a round: kind, text, p and q of each token; gamma, its reason and the drafter; times
    in ms. Where there are alternatives, text, p and q of those of each token.

    Tokens without text have their id too: one of them may turn out to be the end.
    """
    tokens = [[token.kind, *_text_p_q(token)] for token in rnd.tokens]
    alternatives = {}
    if any(token.alternatives is not None for token in rnd.tokens):
        alternatives["alternatives"] = [
            [_text_p_q(each) for each in _alternatives(rnd, at)] for at in range(len(rnd.tokens))
        ]
    return json_line(
        round=rnd.index,
        tokens=tokens,
        **alternatives,
        gamma=[
            rnd.gamma,
            rnd.gamma_reason[:_REASON_CHARACTERS],
            _rounded(rnd.gamma_gain),
            rnd.gamma_cut,
            rnd.source,
        ],
        ms=[_rounded(1000 * seconds) for seconds in (rnd.draft_s, rnd.verify_s, rnd.overhead_s)],
    )


def _text_p_q(token: sd.Token | sd.Alternative) -> list[Any]:
    """Text, p and q; for one without text the id too."""
    known = [token.text, _rounded(token.target_prob), _rounded(token.drafter_prob)]
    return known if token.text else [*known, token.id]


def _alternatives(rnd: sd.Round, at: int) -> list[sd.Alternative]:
    """The likeliest tokens of both models other than token `at`. A rejected draft's are the correction's."""
    token = rnd.tokens[at]
    if token.kind == "rejected" and rnd.tokens[-1].kind == "correction":
        return []
    shown = {token.id} | {
        other.id for other in rnd.tokens if {token.kind, other.kind} == {"correction", "rejected"}
    }
    found = []
    for each in (*(token.alternatives or []), *(token.drafter_alternatives or [])):
        if each.id not in shown:
            shown.add(each.id)
            found.append(each)
    return found


def end_line(reason: str) -> str:
    """Return the last line of an answer."""
    return json_line(end=reason)


def _rule(settings: Mapping[str, Any]) -> str:
    """Return the rule of verification, for a person who sees p and q."""
    if settings.get("gamma") == 0:
        return ""
    if settings.get("temperature") == 0:
        likely = " Alternatives have their chances at temperature 1." if settings.get("alternatives") else ""
        return (
            f"At temperature 0 a draft stands if the target would choose it too: p is 100 % or 0 %.{likely}"
        )
    return {
        "rejection": "A draft stands with the chance p ÷ q, and surely where p is larger than q.",
        "coupled": "A draft stands if the target, drawing with the same noise as the drafter, chose it too.",
    }.get(str(settings.get("verification")), "")


def _rounded(figure: float | None) -> float | None:
    return None if figure is None else float(f"{figure:.4g}")
