"""Checks of CUDA graphs over whole rounds: captured steps against uncaptured ones, and a failing graph.

Works on token ids, with random models from a factory; knows nothing of text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import PreTrainedModel

from ..decoding import Decoding, Limits
from ..drafting import ModelDrafter
from ..drafting.length import FixedGamma
from ..pair import LoadedPair
from ..runners import CudaGraphRunner, Runner, runner_for
from ..runners.cuda_graph import CudaCapture
from ..runners.static import StaticRunner
from ..sampling import DeviceSampling, Verdict, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Settings
from .random_models import VOCAB
from .shapes import word_tokenizer

Model = Callable[[], PreTrainedModel]
"""Factory that loads the model anew on each call."""


def captured_steps_equal_eager(model: Model, settings: Settings) -> tuple[bool, str]:
    """Compare rounds from graphs with rounds from the same functions uncaptured: tokens, p and q.

    Returns True if they agree, and a description. Raises RuntimeError if nothing was captured.
    """
    graphs = _graph_models(model)
    got = _decode(graphs.target, graphs.drafter, settings, graphs.pair.sampling)
    wanted = _decode(StaticRunner(model()), StaticRunner(model()), settings, graphs.pair.sampling)
    worst, same = 0.0, 0
    for a, b in zip(got, wanted, strict=False):
        if (a.drafts, a.accepted, a.token) != (b.drafts, b.accepted, b.token):
            break
        same += 1
        pairs = zip([*a.target_probs, *a.drafter_probs], [*b.target_probs, *b.drafter_probs], strict=True)
        worst = max([worst, *(abs(x - y) for x, y in pairs)])
    reason = graphs.pair.runner_reason
    good = same == len(wanted) and worst < 1e-3 and reason is None
    return good, reason or f"{same} of {len(wanted)} rounds the same, p and q within {worst:.1e}"


def settings_capture_nothing(model: Model, settings: Settings) -> tuple[bool, str]:
    """Count the graphs before and after answers with other settings. Returns True if there are no more, and a
    description. Raises RuntimeError if nothing was captured.
    """
    graphs = _graph_models(model)
    graphs.decode(settings)
    before = graphs.captured
    for changed in (
        dataclasses.replace(settings, temperature=0.5),
        dataclasses.replace(settings, temperature=1.4, top_k=9),
        dataclasses.replace(settings, top_p=0.5, min_p=0.1, seed=2),
    ):
        graphs.decode(changed)
    after = graphs.captured
    return before == after, f"{before} graphs of target and drafter, after three other settings {after}"


def failing_graph(model: Model, settings: Settings) -> tuple[bool, str]:
    """Let the drafter's 30th replay raise. Returns True if the answer is the same and the runner's reason is
    set, and a description. Raises RuntimeError if nothing was captured.
    """
    graphs = _graph_models(model)
    wanted = graphs.decode(settings)
    left = iter(range(29))
    replay = torch.cuda.CUDAGraph.replay

    def failing(graph: torch.cuda.CUDAGraph) -> None:
        if next(left, None) is None:
            raise RuntimeError("made to fail")
        replay(graph)

    graphs.drafter.forget_graphs(CudaCapture(graphs.drafter.device, failing))
    got = graphs.decode(settings)
    same = sum(a.token == b.token for a, b in zip(got, wanted, strict=False))
    reason = graphs.pair.runner_reason
    good = same == len(wanted) == len(got) and reason is not None
    return good, f"{same} of {len(wanted)} rounds the same; {reason or 'no reason given'}"


@dataclass(frozen=True, slots=True)
class _GraphModels:
    """A model that drafts for itself, on two graph runners."""

    target: CudaGraphRunner
    drafter: CudaGraphRunner
    pair: LoadedPair

    @property
    def captured(self) -> tuple[int, int]:
        """Graphs of target and drafter."""
        return self.target.captured, self.drafter.captured

    def decode(self, settings: Settings) -> list[Verdict]:
        return _decode(self.target, self.drafter, settings, self.pair.sampling)


def _graph_models(model: Model) -> _GraphModels:
    target, drafter = _graph_runner(model), _graph_runner(model)
    return _GraphModels(target, drafter, LoadedPair(target, drafter, word_tokenizer(VOCAB), frozenset()))


def _graph_runner(model: Model) -> CudaGraphRunner:
    runner = runner_for(model())
    if not isinstance(runner, CudaGraphRunner):
        raise RuntimeError(runner.reason or "no graph was captured")
    return runner


def _decode(
    target: Runner, drafter: Runner, settings: Settings, sampling: DeviceSampling | None
) -> list[Verdict]:
    """Decode an answer to a fixed context, sampled in the buffers of `sampling`."""
    rounds = Decoding(
        list(range(3, 40)),
        target,
        target.new_cache(),
        ModelDrafter(drafter, drafter.new_cache()),
        sampler_for(settings, KeyedNoise(settings.seed, target.device), sampling),
        FixedGamma(_fixed(settings.gamma)),
        lambda ids: (len(ids), None),
        Limits(settings.max_new_tokens, min(target.context_length, drafter.context_length)),
    ).rounds(lambda: False)
    return [rnd.verdict for rnd in rounds if rnd.verdict is not None]


def _fixed(gamma: int | Literal["auto"]) -> int:
    if gamma == "auto":
        raise ValueError("The checks of graphs need a fixed gamma.")
    return gamma
