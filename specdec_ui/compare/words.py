"""A comparison in words: the speedup, its explanation, and the equality of the texts.

Plain text out, never HTML; knows the measurements, nothing of components.
"""

from __future__ import annotations

import specdec_core as sd

from .comparison import EQUAL, Comparison, LaneAnswer, Outcome
from .speedup import NARROW

FEW_TOKENS = 32
"""A shorter answer is said to mean little."""
LITTLE = 0.02
"""A predicted gain below this is called too small to change gamma for."""
ROUNDING = 1e-3
"""Two scores closer than this may change places in float32."""

_PEER = {
    "generate": "transformers' own plain decoding of the same target, timed after its first step, which "
    "reads the prompt.",
    "assisted": "transformers' own speculative decoding with the same two models, timed after its first "
    "step, which reads the prompt. How many drafts stood it does not say.",
    "llama_cpp": "llama.cpp's plain decoding of the target's GGUF file, timed after its first token, which "
    "the prompt gives.",
}


def verdict(speedup: float | None, outcome: Outcome) -> str:
    """Return the headline, such as "1.62× faster" or "0.87×, so slower"."""
    if speedup is None:
        return "Too short to tell"
    return {
        "faster": f"{speedup:.2f}× faster",
        "slower": f"{speedup:.2f}×, so slower",
    }.get(outcome, f"{speedup:.2f}×, no clear difference")


def interval(ratio: sd.Ratio | None) -> str:
    """Return an interval such as "(1.36–1.48)", "" for None."""
    return f"({ratio.low:.2f}–{ratio.high:.2f})" if ratio else ""


def explanation(comparison: Comparison, lane: LaneAnswer) -> str:
    """Return the reasons for a lane's speedup, in one to three sentences."""
    stats, speedup, outcome = lane.stats, comparison.speedup(lane), comparison.outcome(lane)
    if speedup is None:
        return "The answer ended before there was anything to measure. Ask for something longer."
    if lane.is_peer:
        return _PEER[lane.name]
    alpha, tau, round_cost = stats.acceptance_rate, stats.block_efficiency, comparison.round_cost(lane)
    if alpha is None or tau is None or round_cost is None:
        reason = (
            "No words were repeated, so none was drafted" if lane.name == "ngram" else "Nothing was drafted"
        )
        return f"{reason}: each round gave one token, as in plain decoding."
    pays = "and" if outcome == "faster" else "but"
    sentences = [
        f"{100 * alpha:.0f} % of the tested drafts stood, so a round gave "
        f"{tau:.2f} tokens {pays} took the time of {round_cost:.2f} plain steps"
    ]
    if outcome == "slower":
        sentences.append(_slowdown(comparison, lane, tau, round_cost))
    sentences.append(other_gamma(lane, speedup, outcome))
    if stats.new_tokens < FEW_TOKENS:
        tokens = sd.counted(stats.new_tokens, "token")
        sentences.append(f"With {tokens} this says little; a longer answer says more")
    return ". ".join(sentence for sentence in sentences if sentence) + "."


def _slowdown(comparison: Comparison, lane: LaneAnswer, tau: float, round_cost: float) -> str:
    """The parts of a round's time, in plain steps, and the one term with the largest effect."""
    _, baseline_verify, baseline_rest = _shares(comparison.baseline.stats)
    draft, verify, rest = (round_cost * share for share in _shares(lane.stats))
    instead = {
        "low acceptance: had every draft stood": (lane.mean_gamma + 1) / round_cost,
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


def _shares(stats: sd.Stats) -> tuple[float, float, float]:
    """Shares of drafting, verifying and the rest in the time of the rounds."""
    parts = (stats.draft_s, stats.verify_s, stats.overhead_s)
    draft, verify, rest = (seconds / sum(parts) for seconds in parts)
    return draft, verify, rest


def other_gamma(lane: LaneAnswer, speedup: float, outcome: Outcome) -> str:
    """Return the best gamma of the predicted curve, with the measured speedup moved along it to there."""
    prediction, used = lane.prediction, lane.settings.gamma
    if prediction is None:
        return ""
    best, curve = prediction.best, prediction.by_position
    if best == 0:
        if outcome == "faster":
            return "The costs of single steps predict no gain from any gamma, less than was measured"
        return "No draft length is predicted to pay here: plain decoding (gamma 0) is the better choice"
    if used == "auto":
        return f"Drafts were {lane.mean_gamma:.1f} tokens long on average"
    gain = curve[best] / curve[used] - 1
    if gain == 0:
        return f"No other gamma is predicted to do better than {used}"
    if gain < LITTLE:
        percent = "less than 0.1" if gain < 0.001 else f"{100 * gain:.1f}"
        return f"Gamma {best} is predicted to be {percent} % faster than {used}, too little to matter"
    would = speedup * (1 + gain)
    if would < 1:
        return f"Gamma {best} would have come closest, at about {would:.2f}×"
    return f"Gamma {best} would have given about {would:.2f}×"


def sameness(comparison: Comparison, lane: LaneAnswer) -> str:
    """Return a sentence about the equality of the lane's text with the baseline's, and its reason."""
    divergence = comparison.divergence(lane)
    settings = lane.settings
    promised = comparison.same_text_promised(lane)
    if divergence is None:
        count = sd.counted(len(lane.emitted), "token")
        why = (
            "temperature 0 always takes the likeliest token"
            if settings.temperature == 0
            else f"with coupled verification seed {settings.seed} decides alike in both"
        )
        if promised:
            return f"Both texts are the same, token for token ({count}): {why}."
        return f"Both texts happen to be the same ({count})."
    if lane.name == "llama_cpp":
        return (
            f"The texts differ from token {divergence + 1} on, and may: llama.cpp takes its weights from "
            + (
                "another file, and rounds in its own way."
                if settings.temperature == 0
                else "another file, and makes random draws of its own."
            )
        )
    if lane.is_peer and not promised:
        return (
            f"The texts differ from token {divergence + 1} on, and may: transformers makes random "
            "draws of its own. At temperature 0 they are the same up to rounding."
        )
    if not promised:
        return (
            "The texts differ, and may: with rejection verification both follow the target's probabilities, "
            "each with random draws of its own. Choose coupled to get the same text twice."
        )
    plain, other = _token(comparison.baseline, divergence), _token(lane, divergence)
    return (
        f"The texts part at token {divergence + 1}: plain decoding {plain}, the other {other}. "
        + _margin_words(comparison.margins.get(lane.name))
        + "Up to rounding they should be the same; forwards over one row and over several round differently, "
        "which shows where two tokens are almost equally likely."
    )


def _token(lane: LaneAnswer, position: int) -> str:
    emitted = lane.emitted
    if position >= len(emitted):
        return "had ended"
    if position == len(emitted) - 1 and lane.rounds[-1].finish_reason == "eos":
        return "has the end token"
    return f"has “{emitted[position].text}”"


def _margin_words(margin: float | None) -> str:
    if margin is None:
        return ""
    closeness = "as close as rounding" if margin < ROUNDING else "more than rounding in float32 explains"
    return f"The two best scores there are {margin:.1e} apart, {closeness}. "


def notes(comparison: Comparison) -> list[str]:
    """Return remarks about the figures as a whole, a sentence or two each."""
    sentences = list(comparison.left_out)
    sentences += _of_intervals(comparison)
    costs = [comparison.round_cost(lane) for lane in comparison.drafting_lanes if lane.stats.tested]
    if not comparison.alternated and any(cost is not None and cost < 1 - EQUAL for cost in costs):
        sentences.append(
            "A round seems to have taken less time than a plain step, which it cannot: the machine was "
            "busier during plain decoding. Compare in turns."
        )
    if comparison.disturbed:
        sentences.append(
            "Other answers were being made at the same time, so all times are longer than they need to be."
        )
    return sentences


def _of_intervals(comparison: Comparison) -> list[str]:
    """Remarks about how the lanes took turns, and how certain that makes the speedups."""
    if not comparison.alternated:
        return ["Answered one after the other: a load that changed meanwhile changed the speedup."]
    lanes = [lane for lane in comparison.drafting_lanes if comparison.speedup(lane) is not None]
    measured = [comparison.interval(lane) for lane in lanes]
    known = [each for each in measured if each is not None]
    sentences = []
    if known:
        pairs = min(each.pairs for each in known)
        sentences.append(
            f"In brackets: the 95 % confidence interval, from {pairs} pairs of short stretches that the "
            "lanes decoded in turn."
        )
    if any(each is None or each.half_width > NARROW for each in measured):
        sentences.append(
            f"The speedup is less certain than ±{100 * NARROW:.0f} %. A longer answer or a quieter machine "
            "makes it more certain."
        )
    if peers := [comparison.interval(lane) for lane in comparison.lanes if lane.is_peer]:
        few = ", too few for an interval" if None in peers else ""
        sentences.append(
            f"Lanes of other code cannot pause, so they answered whole, in turn with plain answers{few}."
        )
    return sentences
