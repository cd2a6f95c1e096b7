"""Figures of a bench report: rates, acceptance, and measured against predicted speedups, from samples."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..loading.step_times import StepTimes
from ..metrics import predict, summarize
from ..ratio import Ratio
from ..trace import Round, counted_rounds
from .lanes import Lane, Sample, paired_ratio

BASELINE = "baseline"
PEER = "transformers generate"
ASSISTED = "transformers assisted"
LLAMA_CPP = "llama.cpp"


@dataclass(frozen=True, slots=True)
class Drafts:
    """Acceptance of a lane's drafts over all rounds: rates from 0 to 1, None where no draft was tested."""

    alpha: float | None
    accepted_per_drafted: float | None
    alpha_by_position: list[float | None]
    tau: float
    """Block efficiency: tokens per round, correction or bonus included."""


@dataclass(frozen=True, slots=True)
class PredictedSpeedup:
    """Theoretical speedup of a fixed gamma over the baseline, tau ÷ (γc + v), beside the measured one."""

    v: float
    speedup: float
    """With tau from the acceptance measured at each position, and c of as many drafts in a row."""
    speedup_iid: float
    """With one alpha for all positions (Leviathan et al. 2023, theorem 3.8)."""
    measured_over_predicted: float | None


@dataclass(frozen=True, slots=True)
class LaneFigures:
    """One lane of a table. Rates in tokens per second; None for figures that the lane does not have."""

    lane: str
    gamma: int | Literal["auto"]
    decode_rate: float | None
    """Decoding only, prefill excluded."""
    answer_rate: float
    """The whole answer, prefill included; the rate that is compared with peers."""
    time_to_first_token_s: float | None
    vs_baseline: Ratio | None
    vs_transformers: Ratio | None
    vs_assisted: Ratio | None
    vs_llama_cpp: Ratio | None
    """Of decoding alone, which llama.cpp times itself."""
    drafts: Drafts | None
    prediction: PredictedSpeedup | None
    overhead_share: float | None
    """Share of the rounds' time that bare forwards do not account for; the median over answers."""


@dataclass(frozen=True, slots=True)
class AutoFigures:
    """The adaptive gamma compared with the table's best fixed gamma, 0 (the baseline) included."""

    best_fixed: str
    vs_best_fixed: Ratio
    vs_baseline: Ratio


@dataclass(frozen=True, slots=True)
class Table:
    """The lanes at one temperature, with times in seconds of bare forwards after `context` tokens."""

    temperature: float
    context: int
    drafter_step_s: float
    verify_s: dict[int, float]
    """Target forwards by number of rows."""
    c: float
    """One drafter step, the mean of the first four in a row, in one-row target steps."""
    v: dict[int, float]
    """Target forwards by number of rows, in one-row target steps."""
    lanes: list[LaneFigures]
    auto: AutoFigures | None


def table(temperature: float, context: int, lanes: Sequence[Lane], steps: StepTimes) -> Table:
    """Compute the figures of measured lanes, one of which is the baseline.

    `steps` are times of bare forwards after `context` tokens.
    """
    by_name = {lane.name: lane for lane in lanes}
    return Table(
        temperature=temperature,
        context=context,
        drafter_step_s=steps.drafter_s,
        verify_s=steps.target_s,
        c=steps.c,
        v={rows: steps.v(rows) for rows in steps.target_s},
        lanes=[_lane_figures(lane, by_name, steps) for lane in lanes],
        auto=_auto_figures(lanes, by_name[BASELINE]),
    )


def _lane_figures(lane: Lane, lanes: dict[str, Lane], steps: StepTimes) -> LaneFigures:
    vs_baseline = None
    if lane.is_ours:
        vs_baseline = paired_ratio(lane, lanes[BASELINE], _decoding)
    drafts = _drafts([rnd for sample in lane.samples for rnd in counted_rounds(sample.rounds)])
    return LaneFigures(
        lane=lane.name,
        gamma=lane.gamma,
        decode_rate=lane.median(_decoding),
        answer_rate=statistics.median(sample.answer_rate for sample in lane.samples),
        time_to_first_token_s=lane.median(_first_token_s),
        vs_baseline=vs_baseline,
        vs_transformers=_against(lane, lanes.get(PEER)),
        vs_assisted=_against(lane, lanes.get(f"{ASSISTED}, gamma {lane.gamma}")),
        vs_llama_cpp=paired_ratio(lane, other, _decoding) if (other := lanes.get(LLAMA_CPP)) else None,
        drafts=drafts,
        prediction=_prediction(lane, drafts, steps, vs_baseline) if drafts is not None else None,
        overhead_share=_overhead_share(lane, steps),
    )


def _decoding(sample: Sample) -> float | None:
    return sample.decode_rate


def _answering(sample: Sample) -> float:
    return sample.answer_rate


def _first_token_s(sample: Sample) -> float | None:
    return sample.stats.time_to_first_token_s if sample.stats is not None else None


def _against(lane: Lane, peer: Lane | None) -> Ratio | None:
    return paired_ratio(lane, peer, _answering) if peer is not None else None


def _drafts(rounds: Sequence[Round]) -> Drafts | None:
    stats = summarize(rounds, time_to_first_token_s=0.0, prompt_tokens=0)
    if not stats.drafted or stats.block_efficiency is None:
        return None
    return Drafts(
        alpha=stats.acceptance_rate,
        accepted_per_drafted=stats.accepted_per_drafted,
        alpha_by_position=stats.acceptance_by_position,
        tau=stats.block_efficiency,
    )


def _prediction(
    lane: Lane, drafts: Drafts, steps: StepTimes, measured: Ratio | None
) -> PredictedSpeedup | None:
    """None for lanes that theory does not cover: drafts of n-grams, adaptive gamma, no tested draft."""
    gamma = lane.gamma
    if drafts.alpha is None or lane.drafting != "model" or gamma == "auto":
        return None
    v = [steps.v(rows) for rows in range(1, gamma + 2)]
    # A position that was never reached adds nothing to tau.
    known = [rate or 0.0 for rate in drafts.alpha_by_position]
    predicted = predict(drafts.alpha, known + [0.0] * (gamma - len(known)), steps.c_of(gamma), v)
    speedup = predicted.by_position[gamma]
    ratio = measured.median / speedup if measured is not None else None
    return PredictedSpeedup(v[gamma], speedup, predicted.one_alpha[gamma], ratio)


def _overhead_share(lane: Lane, steps: StepTimes) -> float | None:
    """1 − (time of bare forwards ÷ time of the rounds), the median over answers."""
    shares = []
    for sample in lane.samples:
        rounds = counted_rounds(sample.rounds)
        if rounds and all(len(rnd.drafted) + 1 in steps.target_s for rnd in rounds):
            bare_s = sum(
                (steps.drafting_s(len(rnd.drafted)) if rnd.source == "model" else 0.0)
                + steps.target_s[len(rnd.drafted) + 1]
                for rnd in rounds
            )
            shares.append(1 - bare_s / sum(rnd.seconds for rnd in rounds))
    return statistics.median(shares) if shares else None


def _auto_figures(lanes: Sequence[Lane], baseline: Lane) -> AutoFigures | None:
    auto = next((lane for lane in lanes if lane.drafting == "model" and lane.gamma == "auto"), None)
    if auto is None or auto.median(_decoding) is None:
        return None
    speedups = {
        lane.name: ratio.median
        for lane in lanes
        if lane.drafting == "model" and lane.gamma != "auto"
        if (ratio := paired_ratio(lane, baseline, _decoding)) is not None
    }
    best = max((lane for lane in lanes if lane.name in speedups), key=lambda lane: speedups[lane.name])
    vs_best_fixed = paired_ratio(auto, best, _decoding)
    vs_baseline = paired_ratio(auto, baseline, _decoding)
    if vs_best_fixed is None or vs_baseline is None:
        return None
    return AutoFigures(best.name, vs_best_fixed, vs_baseline)
