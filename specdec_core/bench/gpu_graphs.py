"""Captured draft steps and verification against the same functions uncaptured, and when a graph fails.

Whole rounds over token ids; knows nothing of text, and asks a function for its model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch

from ..decoding import Decoding, Limits
from ..drafting import ModelDrafter
from ..drafting.length import FixedGamma
from ..pair import LoadedPair
from ..runners import CudaGraphRunner, Runner, runner_for
from ..runners.cuda_graph import CudaCapture
from ..runners.static import StaticRunner
from ..sampling import Verdict, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Settings

Model = Callable[[], torch.nn.Module]


def _graph_pair(model: Model) -> LoadedPair:
    """A model that drafts for itself, both on graphs. Raises RuntimeError where none was captured."""
    runners = [runner_for(model()) for _ in range(2)]
    if eager := [runner for runner in runners if not isinstance(runner, CudaGraphRunner)]:
        raise RuntimeError(eager[0].reason or "no graph was captured")
    return LoadedPair(*runners, None, frozenset())


def _decoded(pair: LoadedPair, settings: Settings, runners: Sequence[Runner] | None = None) -> list[Verdict]:
    """An answer of that pair's runners, or of others, sampled in the pair's buffers."""
    target, drafter = runners or (pair.target, pair.drafter)
    rounds = Decoding(
        list(range(3, 40)),
        target,
        target.new_cache(),
        ModelDrafter(drafter, drafter.new_cache()),
        sampler_for(settings, KeyedNoise(settings.seed, target.device), pair.sampling),
        FixedGamma(settings.gamma),
        lambda ids: (len(ids), None),
        Limits(settings.max_new_tokens, pair.context_length),
    ).rounds(lambda: False)
    return [rnd.verdict for rnd in rounds]


def captured_steps_equal_eager(model: Model, settings: Settings) -> tuple[bool, str]:
    """The same rounds from graphs and from the same functions uncaptured: tokens, p and q."""
    pair = _graph_pair(model)
    got = _decoded(pair, settings)
    uncaptured = [StaticRunner(model()) for _ in range(2)]
    wanted = _decoded(pair, settings, uncaptured)
    worst, same = 0.0, 0
    for a, b in zip(got, wanted, strict=False):
        if (a.drafts, a.accepted, a.token) != (b.drafts, b.accepted, b.token):
            break
        same += 1
        pairs = zip([*a.target_probs, *a.drafter_probs], [*b.target_probs, *b.drafter_probs], strict=True)
        worst = max([worst, *(abs(x - y) for x, y in pairs)])
    reason = pair.runner_reason
    good = same == len(wanted) and worst < 1e-3 and reason is None
    return good, reason or f"{same} of {len(wanted)} rounds the same, p and q within {worst:.1e}"


def settings_capture_nothing(model: Model, settings: Settings) -> tuple[bool, str]:
    pair = _graph_pair(model)
    _decoded(pair, settings)
    before = pair.target.captured, pair.drafter.captured
    for changed in (
        {"temperature": 0.5},
        {"temperature": 1.4, "top_k": 9},
        {"top_p": 0.5, "min_p": 0.1, "seed": 2},
    ):
        _decoded(pair, dataclasses.replace(settings, **changed))
    after = pair.target.captured, pair.drafter.captured
    return before == after, f"{before} graphs of target and drafter, after three other settings {after}"


def failing_graph(model: Model, settings: Settings) -> tuple[bool, str]:
    """The drafter's 30th replay raises; the answer must be the one without."""
    pair = _graph_pair(model)
    wanted = _decoded(pair, settings)
    left = iter(range(29))
    replay = torch.cuda.CUDAGraph.replay

    def failing(graph: torch.cuda.CUDAGraph) -> None:
        if next(left, None) is None:
            raise RuntimeError("made to fail")
        replay(graph)

    pair.drafter.forget_graphs(CudaCapture(pair.drafter.device, failing))
    got = _decoded(pair, settings)
    same = sum(a.token == b.token for a, b in zip(got, wanted, strict=False))
    good = same == len(wanted) == len(got) and pair.runner_reason is not None
    return good, f"{same} of {len(wanted)} rounds the same; {pair.runner_reason or 'no reason given'}"
