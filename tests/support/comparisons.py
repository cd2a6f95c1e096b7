"""Comparisons made of replayed rounds."""

from dataclasses import replace

import specdec_core as sd
from specdec_ui.compare import handlers as compare_handlers
from specdec_ui.compare.comparison import Comparison, Costs, LaneAnswer
from specdec_ui.compare.lanes import LaneChoice
from tests.support.replay import STORY, rounds_of

VALUES = tuple(compare_handlers.PANEL.values(compare_handlers.comparable(sd.Settings())))
"""Values of the tab's controls for a preset without settings of its own."""
NO_EXTRA_LANES = LaneChoice()
NGRAM = LaneChoice(drafting=("ngram",), repeat_s=0.0)
ONE_BY_ONE = LaneChoice(alternate=False, repeat_s=0.0)
COUPLED = sd.Settings(verification="coupled", seed=7)


def lane(name="model", gamma=4, text=STORY, slower=1.0, verification="coupled", seed=0):
    """A made-up lane; its rounds take `slower` times as long as those of plain decoding would."""
    rounds = rounds_of(text, gamma, seed)
    rounds = [replace(rnd, draft_s=0.0, verify_s=0.01 * slower, overhead_s=0.0) for rnd in rounds]
    stats = sd.summarize(rounds, time_to_first_token_s=0.05, prompt_tokens=9)
    rounds[-1] = replace(rounds[-1], finish_reason="eos", stats=stats)
    settings = sd.Settings(gamma=gamma, verification=verification, seed=7)
    costs = Costs(0.1, tuple(1 + 0.05 * gamma for gamma in range(9))) if name == "model" else None
    return LaneAnswer(name, settings, rounds, costs)


def made_up(slower=1.5, speedup=None, **settings):
    """A comparison of such a lane with plain decoding, in turns if a `speedup` is given."""
    return Comparison(
        "Tell me a story.",
        (lane("plain", gamma=0, **settings), lane(slower=slower, **settings)),
        speedups={"model": speedup} if speedup else {},
        alternated=speedup is not None,
    )


def run(visitor, holder, prompt="Tell me a story.", choice=NO_EXTRA_LANES):
    """All frames of a comparison of one prompt."""
    return list(compare_handlers.run(visitor, holder, prompt, VALUES, choice, frame_s=0))
