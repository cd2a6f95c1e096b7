"""Training of a drafter on stored conversations until a time on the run's clock.

Knows neither how the conversations were written nor how a drafter is stored.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .conversations import ConversationStore, Selection
from .distillation_loss import DistillationLoss
from .drafter import Drafter
from .run_log import RunLog
from .target import Target

WARMUP = 0.03
"""Share of the time in which the learning rate rises."""
LOG_INTERVAL_S = 4


@dataclass(frozen=True)
class TrainingPlan:
    """Settings of a training; `batch_tokens` counts padding, `until_s` is on the run's clock."""

    until_s: float
    batch_tokens: int = 16384
    peak_rate: float = 1e-3
    tv_weight: float = 0.5
    weight_decay: float = 0.05
    seed: int = 1


def learning_rate(peak: float, progress: float) -> float:
    """Return the rate after a share of the time in 0 to 1: a linear rise, then half a cosine to zero."""
    return peak * min(1, progress / WARMUP + 1e-3) * 0.5 * (1 + math.cos(math.pi * progress))


def batches(selection: Selection, batch_tokens: int, rng: np.random.Generator) -> Iterator[Selection]:
    """Yield batches of about `batch_tokens` tokens without end, conversations of like lengths together."""
    pool = 64 * max(1, batch_tokens // int(selection.lengths.max()))
    while True:
        order = rng.permutation(len(selection))
        for start in range(0, len(order), pool):
            part = order[start : start + pool]
            part = part[np.argsort(selection.lengths[part], kind="stable")]
            cuts, end = [], len(part)
            while end > 0:  # from the longest down: the longest sets a batch's width
                rows = max(1, batch_tokens // int(selection.lengths[part[end - 1]]))
                cuts.append(part[max(0, end - rows) : end])
                end -= rows
            for cut in rng.permutation(len(cuts)):
                yield selection[cuts[cut]]


class Trainer:
    """A drafter, its optimizer, and a copy of the last weights whose loss was finite."""

    def __init__(self, target: Target, drafter: Drafter, plan: TrainingPlan):
        self.target, self.drafter, self.plan = target, drafter, plan
        self.peak_rate = plan.peak_rate
        self._target_head = target.embedding[drafter.head_ids]
        for parameter in drafter.parameters:
            parameter.requires_grad_()
        self._keep()
        self._optimizer = self._fresh_optimizer()

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for p in self.drafter.parameters if p.dim() > 1]
        norms = [p for p in self.drafter.parameters if p.dim() == 1]
        groups = [
            {"params": matrices, "weight_decay": self.plan.weight_decay},
            {"params": norms, "weight_decay": 0},
        ]
        fused = self.target.device.type == "cuda"
        return torch.optim.AdamW(groups, lr=self.peak_rate, betas=(0.9, 0.95), fused=fused)

    def step(self, store: ConversationStore, selection: Selection, progress: float) -> Tensor:
        """Train on one batch; return the loss's terms `[2]`, still on the device."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self.peak_rate, progress)
        batch = store.batch(selection)
        states = self.drafter.states(self.target, batch.ids, batch.positions)
        loss, terms = DistillationLoss.apply(
            states,
            self.drafter.head,
            store.states[batch.state_rows],
            self._target_head,
            self.plan.tv_weight,
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.drafter.parameters, 1.0)
        self._optimizer.step()
        return terms

    def keep_or_go_back(self, finite: bool) -> None:
        """Copy the weights, or go back to the last copy with a fresh optimizer and a lower rate."""
        if finite:
            self._keep()
            return
        self.peak_rate *= 0.3
        self._restore()
        self._optimizer = self._fresh_optimizer()

    def finish(self) -> Drafter:
        """Return the drafter without gradients, from the last copy where its weights are not finite."""
        for parameter in self.drafter.parameters:
            parameter.requires_grad_(False)
        if not all(bool(parameter.isfinite().all()) for parameter in self.drafter.parameters):
            self._restore()
        return self.drafter

    def _keep(self) -> None:
        self._kept = [parameter.detach().clone() for parameter in self.drafter.parameters]

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, kept in zip(self.drafter.parameters, self._kept, strict=True):
            parameter.copy_(kept)


def train(
    target: Target,
    drafter: Drafter,
    store: ConversationStore,
    selection: Selection,
    plan: TrainingPlan,
    log: RunLog,
    name: str,
) -> Drafter:
    """Train `drafter` on the selected conversations until the plan's end and return it."""
    trainer = Trainer(target, drafter, plan)
    # A read from the device keeps the host from queueing far ahead, but costs a synchronization.
    steps_between_reads = 20 if target.device.type == "cuda" else 2
    begin = logged_at = log.now()
    steps = tokens = 0
    recent: list[Tensor] = []
    for part in batches(selection, plan.batch_tokens, np.random.default_rng(plan.seed)):
        progress = (log.now() - begin) / max(1e-3, plan.until_s - begin)
        if progress >= 1:
            break
        recent.append(trainer.step(store, part, progress))
        steps, tokens = steps + 1, tokens + part.answer_tokens
        if steps % steps_between_reads:
            continue
        cross_entropy, tv = torch.stack(recent).mean(0).tolist()
        recent = []
        if not math.isfinite(cross_entropy):
            trainer.keep_or_go_back(finite=False)
            log.write("train", drafter=name, loss=repr(cross_entropy), lowered_peak_rate=trainer.peak_rate)
        elif log.now() - logged_at > LOG_INTERVAL_S:
            logged_at = log.now()
            trainer.keep_or_go_back(finite=True)
            log.write(
                "train",
                drafter=name,
                steps=steps,
                cross_entropy=cross_entropy,
                acceptance=1 - tv,
                rate=learning_rate(trainer.peak_rate, progress),
                tokens_per_s=round(tokens / (logged_at - begin)),
                epochs=tokens / max(1, selection.answer_tokens),
            )
    trained = trainer.finish()
    log.write("train", drafter=name, done=True, steps=steps, tokens=tokens, seconds=log.now() - begin)
    return trained
