"""Is speculative output the baseline's, token for token? Counted over many prompts, divergences explained."""

from __future__ import annotations

import dataclasses

from ..engine import Engine
from ..pair import token_margin
from ..peers import peer_ids
from ..settings import Settings
from ..trace import first_difference
from .prompts import topic_request

GAMMAS = (1, 3, 4, 8)
EXCUSED_MARGIN = 1e-3
"""Below this, in float32, one-row and several-row kernels may order the two best logits differently."""


def exactness(engine: Engine, prompts: int, max_new_tokens: int = 150) -> dict:
    """Greedy answers for every gamma and transformers' own against the baseline; coupled ones at
    temperature 1 against the baseline with the same seed. Each divergence has the margin between the two
    best scores where it began, in logits.
    """
    compared, divergences = 0, []
    for n in range(prompts):
        messages = topic_request(n)
        common = {"max_new_tokens": max_new_tokens, "gamma": 0, "seed": n}
        for name, settings in (
            ("greedy", Settings(temperature=0, **common)),
            ("coupled", Settings(temperature=1, verification="coupled", **common)),
        ):
            baseline = engine.generate(messages, settings)
            answers = _speculative(engine, messages, settings)
            if name == "greedy":
                answers["transformers generate"] = peer_ids(
                    engine.pair, baseline.prompt_token_ids, settings, assisted=False
                )
            for lane, ids in answers.items():
                compared += 1
                at = first_difference(ids, baseline.token_ids)
                if at is not None:
                    before = baseline.prompt_token_ids + baseline.token_ids[:at]
                    margin = token_margin(engine.pair, before, settings)
                    divergences.append(
                        {"prompt": n, "rule": name, "lane": lane, "token": at, "margin": margin}
                    )
    return {
        "prompts": prompts,
        "max_new_tokens": max_new_tokens,
        "compared": compared,
        "divergences": divergences,
        "unexcused": sum(d["margin"] >= EXCUSED_MARGIN for d in divergences),
    }


def exactness_lines(report: dict) -> list[str]:
    lines = [
        f"{report['compared']} answers of up to {report['max_new_tokens']} tokens to {report['prompts']} "
        f"prompts compared with the baseline's: {len(report['divergences'])} diverge, "
        f"{report['unexcused']} of them with a margin of {EXCUSED_MARGIN:g} or more",
    ]
    for d in report["divergences"]:
        lines.append(
            f"  prompt {d['prompt']}, {d['rule']}, {d['lane']}: from token {d['token']}, "
            f"margin {d['margin']:.1e}"
        )
    return lines


def _speculative(engine: Engine, messages: list[dict], settings: Settings) -> dict[str, list[int]]:
    if engine.pair.drafter is None:
        return {}
    return {
        f"gamma {gamma}": engine.generate(messages, dataclasses.replace(settings, gamma=gamma)).token_ids
        for gamma in GAMMAS
    }
