"""A comparison in words: the speedup, its explanation, and the equality of the texts.

Plain text out, never HTML; knows the measurements, nothing of components.
"""

from __future__ import annotations

import specdec_core as sd

from .comparison import Comparison, Divergence, LaneAnswer

FEW_TOKENS = 32
"""A shorter answer is said to mean little."""
EQUAL = 0.02
"""Speedups this close to 1 are called equal."""
ROUNDING = 1e-3
"""Two scores closer than this may change places in float32."""

_PEER = {
    "generate": "transformers' own plain decoding of the same target, timed after its first step, which "
    "reads the prompt.",
    "assisted": "transformers' own speculative decoding with the same two models, timed after its first "
    "step, which reads the prompt. How many drafts stood it does not say.",
}


def verdict(speedup: float | None) -> str:
    """Return the headline, such as "1.62× faster" or "0.87×, so slower"."""
    if speedup is None:
        return "Too short to tell"
    if speedup > 1 + EQUAL:
        return f"{speedup:.2f}× faster"
    if speedup < 1 - EQUAL:
        return f"{speedup:.2f}×, so slower"
    return f"{speedup:.2f}×, so no faster"


def explanation(comparison: Comparison, lane: LaneAnswer) -> str:
    """Return the reasons for a lane's speedup, in one to three sentences."""
    stats, speedup = lane.stats, comparison.speedup(lane)
    if speedup is None:
        return "The answer ended before there was anything to measure. Ask for something longer."
    if lane.is_peer:
        return _PEER[lane.name]
    alpha, tau, round_cost = stats.acceptance_rate, stats.block_efficiency, comparison.round_cost(lane)
    if alpha is None or tau is None or round_cost is None:
        reason = (
            "Nothing was drafted" if lane.name == "model" else "No words were repeated, so none was drafted"
        )
        return f"{reason}: each round gave one token, as in plain decoding."
    pays = "and" if speedup > 1 + EQUAL else "but"
    sentences = [
        f"{100 * alpha:.0f} % of the tested drafts stood, so a round gave "
        f"{tau:.2f} tokens {pays} took the time of {round_cost:.2f} plain steps"
    ]
    if speedup < 1 - EQUAL:
        sentences.append(_slowdown(comparison, lane, tau))
    sentences.append(_other_gamma(lane, speedup))
    if stats.new_tokens < FEW_TOKENS:
        sentences.append(f"With {stats.new_tokens} tokens this says little; a longer answer says more")
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def _slowdown(comparison: Comparison, lane: LaneAnswer, tau: float) -> str:
    """The parts of a round's time, in plain steps, and the one term with the largest effect."""
    baseline, stats = comparison.baseline.stats, lane.stats
    step_s = comparison.baseline.decoding_s / baseline.rounds
    baseline_verify, baseline_rest = (
        baseline.verify_s / baseline.rounds / step_s,
        baseline.overhead_s / baseline.rounds / step_s,
    )
    draft, verify, rest = (
        seconds / stats.rounds / step_s for seconds in (stats.draft_s, stats.verify_s, stats.overhead_s)
    )
    whole = draft + verify + rest
    instead = {
        "low acceptance: had every draft stood": (lane.mean_gamma + 1) / whole,
        "drafting: had it cost nothing": tau / (verify + rest),
        "verifying: had it cost no more than a plain step does": tau
        / (draft + min(verify, baseline_verify) + rest),
        "the rest, sampling and Python: had it been as in plain decoding": tau
        / (draft + verify + min(rest, baseline_rest)),
    }
    worst = max(instead, key=instead.__getitem__)
    return (
        f"Of these, {draft:.2f} went into drafting, {verify:.2f} into verifying, {rest:.2f} into the rest. "
        f"What weighs most is {worst}, it would have been {instead[worst]:.2f}×"
    )


def _other_gamma(lane: LaneAnswer, speedup: float) -> str:
    """The speedup at another gamma: the measured one, moved along the predicted curve."""
    prediction, used = lane.prediction, lane.settings.gamma
    if prediction is None:
        return ""
    best = prediction.best
    if best == 0:
        return "No draft length is predicted to pay here: plain decoding (gamma 0) is the better choice"
    if used == "auto":
        return f"Drafts were {lane.mean_gamma:.1f} tokens long on average"
    would = speedup * prediction.by_position[best] / prediction.by_position[used]
    if best == used or would < 1.02 * speedup:
        return f"No other gamma is predicted to do better than {used}"
    if would < 1:
        return f"Gamma {best} would have come closest, at about {would:.2f}×"
    return f"Gamma {best} would have given about {would:.2f}×"


def sameness(comparison: Comparison, lane: LaneAnswer) -> str:
    """Return a sentence about the equality of the lane's text with the baseline's, and its reason."""
    divergence = comparison.divergence(lane)
    settings = lane.settings
    promised = comparison.same_text_promised(lane)
    if divergence is None:
        count = len(lane.emitted)
        why = (
            "temperature 0 always takes the likeliest token"
            if settings.temperature == 0
            else f"with coupled verification seed {settings.seed} decides alike in both"
        )
        if promised:
            return f"Both texts are the same, token for token ({count} tokens): {why}."
        return f"Both texts happen to be the same ({count} tokens)."
    if lane.is_peer and not promised:
        return (
            f"The texts differ from token {divergence.position + 1} on, and may: transformers makes random "
            "draws of its own. At temperature 0 they are the same up to rounding."
        )
    if not promised:
        return (
            "The texts differ, and may: with rejection verification both follow the target's probabilities, "
            "each with random draws of its own. Choose coupled to get the same text twice."
        )
    return (
        f"The texts part at token {divergence.position + 1}: {_both_tokens(divergence)}. "
        + _margin_words(comparison.margins.get(lane.name))
        + "Up to rounding they should be the same; forwards over one row and over several round differently, "
        "which shows where two tokens are almost equally likely."
    )


def _both_tokens(divergence: Divergence) -> str:
    def words(token: sd.Token | None) -> str:
        return "had ended" if token is None else f"has “{token.text}”"

    return f"plain decoding {words(divergence.baseline)}, the other {words(divergence.other)}"


def _margin_words(margin: float | None) -> str:
    if margin is None:
        return ""
    closeness = "as close as rounding" if margin < ROUNDING else "more than rounding in float32 explains"
    return f"The two best scores there are {margin:.1e} apart, {closeness}. "


def notes(comparison: Comparison) -> list[str]:
    """Return remarks about the figures as a whole, a sentence or two each."""
    sentences = list(comparison.left_out)
    if comparison.live:
        sentences.append(
            "Seen live: each lane's time is that of its own rounds, but the lanes got in each other's way, "
            "in the processor's caches and its clock. For fair figures compare one after the other."
        )
    costs = [comparison.round_cost(lane) for lane in comparison.drafting_lanes if lane.stats.tested]
    if any(cost is not None and cost < 1 - EQUAL for cost in costs):
        sentences.append(
            "A round seems to have taken less time than a plain step, which it cannot: the machine was "
            "busier during plain decoding. Compare again when it is quiet."
        )
    if comparison.disturbed:
        sentences.append(
            "Other answers were being made at the same time, so all times are longer than they need to be. "
            "Compare again when it is quiet."
        )
    return sentences
