"""Comparisons made of replayed rounds."""

from dataclasses import replace

import specdec_core as sd
from specdec_core.metrics import summarize
from specdec_ui.compare import handlers as compare_handlers
from specdec_ui.compare.comparison import Comparison, Costs, Lane
from specdec_ui.compare.run import Asked
from specdec_ui.state.holder import EngineHolder
from tests.support.replay import STORY, ReplayEngine, ReplayPreset, rounds_of

VALUES = tuple(compare_handlers.control_values(sd.Settings()))
PLAIN_ASKED = Asked()
NGRAM = Asked(ngram=True)
COUPLED = sd.Settings(verification="coupled", seed=7)


def loaded_holder(engine=None):
    engine = engine or ReplayEngine()
    holder = EngineHolder(lambda preset, on_progress: (engine, None))
    holder.load(ReplayPreset("replay"), lambda message, fraction: None)
    return holder


def lane(name="model", gamma=4, text=STORY, slower=1.0, verification="coupled", seed=0):
    """A made-up lane; its rounds take `slower` times as long as those of plain decoding would."""
    rounds = rounds_of(text, gamma, seed)
    rounds = [replace(rnd, draft_s=0.0, verify_s=0.01 * slower, overhead_s=0.0) for rnd in rounds]
    stats = summarize(rounds, time_to_first_token_s=0.05, prompt_tokens=9)
    rounds[-1] = replace(rounds[-1], finish_reason="eos", stats=stats)
    settings = sd.Settings(gamma=gamma, verification=verification, seed=7)
    costs = None if name == "plain" else Costs(0.1, tuple(1 + 0.05 * gamma for gamma in range(9)))
    return Lane(name, settings, rounds, costs)


def made_up(slower=1.5, **settings):
    return Comparison(
        "Tell me a story.", (lane("plain", gamma=0, **settings), lane(slower=slower, **settings))
    )


def run(visitor, holder, prompt="Tell me a story.", asked=PLAIN_ASKED):
    return list(compare_handlers.run(visitor, holder, prompt, VALUES, asked, frame_s=0))
