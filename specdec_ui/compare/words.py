"""What a comparison says, in words: how much faster or slower, why, and whether the texts are the same.

Plain text out, never HTML; knows the measurements, nothing of components.
"""

from __future__ import annotations

from .comparison import Comparison, Divergence, Lane, drafts_a_round, predict

FEW_TOKENS = 32
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
    if lane.is_peer:
        return _PEER[lane.name]
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
        said.append(_why_slower(comparison, lane))
    said.append(_other_gamma(lane, speedup))
    if stats.new_tokens < FEW_TOKENS:
        said.append(f"With {stats.new_tokens} tokens this says little; a longer answer says more")
    return ". ".join(part for part in said if part) + "."


def _why_slower(comparison: Comparison, lane: Lane) -> str:
    """What a round's time went into, in plain steps, and the one term that would mend most."""
    plain, stats = comparison.plain.stats, lane.stats
    step_s = comparison.plain.decoding_s / plain.rounds
    plain_verify, plain_rest = (
        plain.verify_s / plain.rounds / step_s,
        plain.overhead_s / plain.rounds / step_s,
    )
    draft, verify, rest = (
        seconds / stats.rounds / step_s for seconds in (stats.draft_s, stats.verify_s, stats.overhead_s)
    )
    tau = stats.block_efficiency
    whole = draft + verify + rest
    instead = {
        "low acceptance: had every draft stood": (drafts_a_round(lane) + 1) / whole,
        "drafting: had it cost nothing": tau / (verify + rest),
        "verifying: had it cost no more than a plain step does": tau
        / (draft + min(verify, plain_verify) + rest),
        "the rest, sampling and Python: had it been as in plain decoding": tau
        / (draft + verify + min(rest, plain_rest)),
    }
    worst = max(instead, key=instead.__getitem__)
    return (
        f"Of these, {draft:.2f} went into drafting, {verify:.2f} into verifying, {rest:.2f} into the rest. "
        f"What weighs most is {worst}, it would have been {instead[worst]:.2f}×"
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
    promised = comparison.same_text_promised(lane)
    if parting is None:
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
            f"The texts differ from token {parting.position + 1} on, and may: transformers makes random "
            "draws of its own. At temperature 0 they are the same up to rounding."
        )
    if not promised:
        return (
            "The texts differ, and may: with rejection verification both follow the target's probabilities, "
            "each with random draws of its own. Choose coupled to get the same text twice."
        )
    return (
        f"The texts part at token {parting.position + 1}: {_parting(parting)}. "
        + _how_close(comparison.margins.get(lane.name))
        + "Up to rounding they should be the same; forwards over one row and over several round differently, "
        "which shows where two tokens are almost equally likely."
    )


def _parting(parting: Divergence) -> str:
    def told(token) -> str:
        return "had ended" if token is None else f"has “{token.text}”"

    return f"plain decoding {told(parting.plain)}, the other {told(parting.other)}"


def _how_close(margin: float | None) -> str:
    if margin is None:
        return ""
    verdict = "as close as rounding" if margin < ROUNDING else "more than rounding in float32 explains"
    return f"The two best scores there are {margin:.1e} apart, {verdict}. "


def notes(comparison: Comparison) -> list[str]:
    """What to know about the figures as a whole, a sentence or two each."""
    said = list(comparison.left_out)
    if comparison.live:
        said.append(
            "Seen live: each lane's time is that of its own rounds, but the lanes got in each other's way, "
            "in the processor's caches and its clock. For fair figures compare one after the other."
        )
    steps = [comparison.plain_steps(lane) for lane in comparison.drafted if lane.stats.tested]
    if any(each is not None and each < 1 - EQUAL for each in steps):
        said.append(
            "A round seems to have taken less time than a plain step, which it cannot: the machine was "
            "busier during plain decoding. Compare again when it is quiet."
        )
    if comparison.disturbed:
        said.append(
            "Other answers were being made at the same time, so all times are longer than they need to be. "
            "Compare again when it is quiet."
        )
    return said
