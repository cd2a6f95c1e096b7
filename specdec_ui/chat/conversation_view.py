"""Conversation view: turns with their figures, streamed. Knows its scripts, no models."""

from __future__ import annotations

import gradio as gr

from ..parts.assets import view_script

_TEMPLATE = """
<section class="conversation" aria-labelledby="conversation-title">
  <h2 id="conversation-title">Conversation</h2>
  <div class="conversation-log" role="log" aria-label="Conversation" tabindex="0" hidden></div>
  <div class="conversation-empty">
    <p class="conversation-lead">Nothing said yet.</p>
    <p>Ask for something, or choose one of the requests below. The first message loads the pair above.</p>
  </div>
</section>
"""


def conversation_view() -> gr.HTML:
    """Create the component; its value is the transcript of a Conversation."""
    return gr.HTML(
        value="",
        html_template=_TEMPLATE,
        js_on_load=view_script("conversation.js"),
        apply_default_css=False,
        elem_id="conversation",
    )
