"""What a comparison says, in words: how much faster or slower, why, and whether the texts are the same.

Plain text out, never HTML; knows the measurements, nothing of components.
"""

from __future__ import annotations

from .comparison import Comparison, Divergence, Lane, drafts_a_round, predict

FEW_TOKENS = 32
EQUAL = 0.02
"""Speedups this close to 1 are called equal."""


def verdict(speedup: float | None) -> str:
    """The headline: "1.62× faster", "0.87×, slower" or "As fast"."""
    if speedup is None:
        return "Too short to tell"
    if speedup > 1 + EQUAL:
        return f"{speedup:.2f}× faster"
    if speedup < 1 - EQUAL:
        return f"{speedup:.2f}×, so slower"
    return f"{speedup:.2f}×, so no faster"


def explanation(comparison: Comparison, lane: Lane) -> str:
    """Why it is so, in one to three sentences."""
    stats, speedup = lane.stats, comparison.speedup(lane)
    if speedup is None:
        return "The answer ended before there was anything to measure. Ask for something longer."
    steps = comparison.plain_steps(lane)
    if not stats.tested:
        found = (
            "Nothing was drafted" if lane.name == "model" else "No words were repeated, so none was drafted"
        )
        return f"{found}: each round gave one token, as in plain decoding."
    pays = "and" if speedup > 1 + EQUAL else "but"
    said = [
        f"{100 * stats.acceptance_rate:.0f} % of the tested drafts stood, so a round gave "
        f"{stats.block_efficiency:.2f} tokens {pays} took the time of {steps:.2f} plain steps"
    ]
    if speedup < 1 - EQUAL:
        said[0] += f" ({_where_the_time_went(lane)})"
    said.append(_other_gamma(lane, speedup))
    if stats.new_tokens < FEW_TOKENS:
        said.append(f"With {stats.new_tokens} tokens this says little; a longer answer says more")
    return ". ".join(part for part in said if part) + "."


def _where_the_time_went(lane: Lane) -> str:
    stats = lane.stats
    whole = stats.draft_s + stats.verify_s + stats.overhead_s
    return (
        f"{100 * stats.draft_s / whole:.0f} % of it drafting, {100 * stats.verify_s / whole:.0f} % verifying"
    )


def _other_gamma(lane: Lane, speedup: float) -> str:
    """What another draft length would have given: the measured speedup, moved along the predicted curve."""
    prediction, used = predict(lane), lane.settings.gamma
    if prediction is None:
        return ""
    best = prediction.best
    if best == 0:
        return "No draft length is predicted to pay here: plain decoding (gamma 0) is the better choice"
    if used == "auto":
        return f"Drafts were {drafts_a_round(lane):.1f} tokens long on average"
    would = speedup * prediction.by_position[best] / prediction.by_position[used]
    if best == used or would < 1.02 * speedup:
        return f"No other gamma is predicted to do better than {used}"
    if would < 1:
        return f"Gamma {best} would have come closest, at about {would:.2f}×"
    return f"Gamma {best} would have given about {would:.2f}×"


def sameness(comparison: Comparison, lane: Lane) -> str:
    """Whether the lane's text is the baseline's, and if not, whether it should have been."""
    parting = comparison.divergence(lane)
    settings = lane.settings
    if parting is None:
        count = len(lane.emitted)
        why = (
            "temperature 0 always takes the likeliest token"
            if settings.temperature == 0
            else f"with coupled verification seed {settings.seed} decides alike in both"
        )
        if comparison.same_text_promised:
            return f"Both texts are the same, token for token ({count} tokens): {why}."
        return f"Both texts happen to be the same ({count} tokens)."
    if not comparison.same_text_promised:
        return (
            "The texts differ, and may: with rejection verification both follow the target's probabilities, "
            "each with random draws of its own. Choose coupled to get the same text twice."
        )
    return (
        f"The texts part at token {parting.position + 1}: {_parting(parting)}. They should be the same up to "
        "rounding; forwards over one row and over several round differently, which shows where two tokens "
        "are almost equally likely."
    )


def _parting(parting: Divergence) -> str:
    def told(token) -> str:
        if token is None:
            return "had ended"
        p = "" if token.target_prob is None else f" (p {100 * token.target_prob:.3g} %)"
        return f"has “{token.text}”{p}"

    return f"plain decoding {told(parting.plain)}, the other {told(parting.other)}"
