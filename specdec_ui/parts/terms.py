"""Technical terms of the page as HTML, each with its meaning; terms.js shows it on hover, focus or tap."""

from __future__ import annotations

from html import escape

from .assets import view_script
from .figures import FIGURES

MEANINGS = dict(FIGURES) | {
    "pair": "The target and the drafter that work together.",
    "target": "The large model, whose answer you get.",
    "drafter": "The small model, which proposes the next tokens.",
    "precision": "The format in which the weights are held and multiplied. Fewer bits take less memory.",
    "device": "What computes: a GPU, or the CPU.",
    "runner": (
        "The code that runs the models: eager is transformers' own, lean the same on fewer operations, "
        "onnx the same on ONNX Runtime, CUDA graph replays recorded steps on a GPU. The answer is the same."
    ),
    "context": "How many tokens of conversation the pair can hold.",
    "memory": "What the weights of both models take.",
    "drafting": "Who proposes tokens: the drafter, or repetitions in the text so far (n-gram), or "
    "both by turns. Gamma is how many drafts a round asks for.",
    "verification": (
        "How the target judges drafts. Rejection: a draft stands with the chance p ÷ q. Coupled: it stands "
        "if the target, drawing with the same noise, chose it too."
    ),
    "same as plain": (
        "Tokens whose probabilities the target computed bit for bit as in plain decoding, whatever drafts it "
        "verified beside them. Compared when the pair was loaded."
    ),
    "temperature": "How freely tokens are drawn: 0 always takes the likeliest one.",
    "seed": "What the chance draws begin with: the same seed and settings repeat them.",
    "p, target": "The probability that the target gives this token.",
    "q, drafter": "The probability that the drafter gives this token.",
}

BOX = '<div class="term-tip" id="term-tip" role="tooltip" hidden></div>'
"""Tooltip for the meanings; once on the page, in the component that has SCRIPT."""

SCRIPT = view_script("terms.js")


def term(name: str) -> str:
    """Return the term as HTML: a button with its meaning, or escaped text if there is none."""
    meaning = MEANINGS.get(name)
    if meaning is None:
        return escape(name)
    return f'<button type="button" class="term" data-meaning="{escape(meaning)}">{escape(name)}</button>'
