"""Checks of CUDA graphs over whole rounds: captured steps against uncaptured ones, and a failing graph.

Works on token ids, with random models from a factory; knows nothing of text. On a CPU a replay computes the
captured function again, so that a rehearsal goes through the same code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..decoding import Decoding, Limits
from ..drafting import ModelDrafter
from ..drafting.length import FixedGamma
from ..runners import CudaGraphRunner, Runner, runner_for
from ..runners.cuda_capture import Capture, CudaCapture
from ..runners.static import StaticRunner
from ..sampling import DeviceSampling, Verdict, sampler_for
from ..sampling.noise import KeyedNoise
from ..settings import Settings
from .gpu_findings import Outcome, verdict
from .gpu_run import StepRun
from .random_models import SMALL, save_random

_WIDTH = 64
"""Best ids that filters look at first; at the usual number the vocabulary of these models would be sorted."""

Model = Callable[[], PreTrainedModel]
"""Factory that loads the model anew on each call."""


RULES = {
    "greedy": Settings(max_new_tokens=96, temperature=0, gamma=4, seed=1),
    "rejection": Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1),
    "coupled": Settings(max_new_tokens=96, temperature=1, gamma=4, seed=1, verification="coupled"),
}
"""Settings with each rule of verification."""
_NO_KERNELS = "a CPU runs no Triton kernels"
_FILTERED = Settings(max_new_tokens=96, temperature=0.9, top_k=50, top_p=0.9, min_p=0.01, gamma=4, seed=1)
_WITH_FILTERS = {
    "rejection, filtered": _FILTERED,
    "greedy, penalties": dataclasses.replace(RULES["greedy"], repetition_penalty=1.2, presence_penalty=0.5),
    "rejection, penalty and typical-p": dataclasses.replace(
        RULES["rejection"], frequency_penalty=0.5, typical_p=0.8
    ),
    "coupled, bias, ban and alternatives": dataclasses.replace(
        RULES["coupled"], logit_bias={5: 2.0}, banned_tokens=[7], alternatives=5
    ),
}


def graphs_step(run: StepRun) -> None:
    """Compare captured rounds with uncaptured ones, count graphs, and let one fail."""
    folder = save_random(run.folder / "llama", "llama", SMALL, run.device)
    model = partial(run.load, folder, "none")
    for rule, settings in {**RULES, **_WITH_FILTERS}.items():
        name = f"captured draft steps and verification equal uncaptured ones: {rule}"
        run.attempt(name, partial(captured_steps_equal_eager, model, settings))
    run.attempt("new settings capture nothing", partial(settings_capture_nothing, model, _FILTERED))
    run.attempt("a failing graph does not break an answer", partial(failing_graph, model, RULES["greedy"]))


def recomputed(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
    """Replacement of a capture on a CPU: a replay calls the function again."""
    result = function()
    return lambda: result.copy_(function()), result


def graph_runner(model: PreTrainedModel) -> CudaGraphRunner:
    """Return a runner of graphs, whose replays compute again on a CPU. Raises RuntimeError if nothing was
    captured.
    """
    if model.device.type == "cpu":
        return CudaGraphRunner(model, capture=recomputed, why_unfused=_NO_KERNELS)
    runner = runner_for(model)
    if not isinstance(runner, CudaGraphRunner):
        raise RuntimeError(runner.reason or "no graph was captured")
    return runner


def captured_steps_equal_eager(model: Model, settings: Settings) -> Outcome:
    """Compare rounds from graphs with rounds from the same functions uncaptured: tokens, p and q.

    Raises RuntimeError if nothing was captured.
    """
    graphs = _graph_models(model)
    unfused = graphs.target.why_unfused
    uncaptured = [StaticRunner(model(), why_unfused=unfused) for _ in range(2)]
    got = graphs.decode(settings)
    wanted = _decode(uncaptured[0], uncaptured[1], settings, graphs.sampling)
    worst, same = 0.0, 0
    for a, b in zip(got, wanted, strict=False):
        if (a.drafts, a.accepted, a.token) != (b.drafts, b.accepted, b.token):
            break
        same += 1
        pairs = zip([*a.target_probs, *a.drafter_probs], [*b.target_probs, *b.drafter_probs], strict=True)
        worst = max([worst, *(abs(x - y) for x, y in pairs)])
    reason = graphs.reason
    return verdict(
        same == len(wanted) and worst < 1e-3 and reason is None,
        reason or f"{same} of {len(wanted)} rounds the same, p and q within {worst:.1e}",
        {"same": same, "rounds": len(wanted), "worst": worst, "reason": reason},
    )


def settings_capture_nothing(model: Model, settings: Settings) -> Outcome:
    """Count the graphs before and after answers with other settings. Passes if there are no more.

    Raises RuntimeError if nothing was captured.
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
    return verdict(
        before == after,
        f"{before} graphs of target and drafter, after three other settings {after}",
        {"before": before, "after": after},
    )


def failing_graph(model: Model, settings: Settings) -> Outcome:
    """Let the drafter's 30th replay raise. Passes if the answer is the same and the runner's reason is set.

    Raises RuntimeError if nothing was captured.
    """
    graphs = _graph_models(model)
    wanted = graphs.decode(settings)
    graphs.drafter.forget_graphs(_failing_capture(graphs.drafter.device, 30))
    got = graphs.decode(settings)
    same = sum(a.token == b.token for a, b in zip(got, wanted, strict=False))
    reason = graphs.reason
    return verdict(
        same == len(wanted) == len(got) and reason is not None,
        f"{same} of {len(wanted)} rounds the same; {reason or 'no reason given'}",
        {"same": same, "rounds": len(wanted), "reason": reason},
    )


def _failing_capture(device: torch.device, failing: int) -> Capture:
    """A capture whose replay number `failing` raises."""
    left = iter(range(failing - 1))

    def count() -> None:
        if next(left, None) is None:
            raise RuntimeError("made to fail")

    if device.type == "cpu":

        def capture(function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
            replay, result = recomputed(function)
            return lambda: (count(), replay()), result

        return capture
    replay = torch.cuda.CUDAGraph.replay

    def failing_replay(graph: torch.cuda.CUDAGraph) -> None:
        count()
        replay(graph)

    return CudaCapture(device, failing_replay)


@dataclass(frozen=True, slots=True)
class _GraphModels:
    """A model that drafts for itself, on two graph runners."""

    target: CudaGraphRunner
    drafter: CudaGraphRunner
    sampling: DeviceSampling

    @property
    def captured(self) -> tuple[int, int]:
        """Graphs of target and drafter."""
        return self.target.captured, self.drafter.captured

    @property
    def reason(self) -> str | None:
        """Reason why a runner does not use its graphs any more."""
        return self.target.reason or self.drafter.reason

    def decode(self, settings: Settings) -> list[Verdict]:
        return _decode(self.target, self.drafter, settings, self.sampling)


def _graph_models(model: Model) -> _GraphModels:
    target, drafter = graph_runner(model()), graph_runner(model())
    return _GraphModels(target, drafter, DeviceSampling(target.device, target.vocab_size, _WIDTH))


def _decode(target: Runner, drafter: Runner, settings: Settings, sampling: DeviceSampling) -> list[Verdict]:
    """Decode an answer to a fixed context, sampled in the buffers of `sampling`."""
    rounds = Decoding(
        list(range(3, 40)),
        target,
        target.new_cache(),
        [ModelDrafter(drafter, drafter.new_cache())],
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
