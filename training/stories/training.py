"""One optimization loop for both models, bounded by the clock and resumable.

Knows neither what is learned (a loss function says so) nor where the batches come from.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from specdec_core import to_json

Batch = tuple[torch.Tensor, torch.Tensor]  # ids, labels: [rows, length]


@dataclass
class Progress:
    """State of a run, kept in its checkpoint."""

    step: int = 0
    tokens: int = 0
    learned_tokens: int = 0
    seconds: float = 0.0
    best: float = math.inf
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """Budget and learning rate: warm-up, stable, then a linear decay that ends with the budget."""

    minutes: float
    muon_rate: float
    adam_rate: float
    weight_decay: float
    warmup_steps: int = 40
    decay_share: float = 0.4
    evaluate_every: int = 150

    def rate(self, step: int, seconds: float) -> float:
        """The factor on the learning rates after `seconds` of the budget."""
        left = 1 - seconds / (60 * self.minutes)
        return min(1.0, (step + 1) / self.warmup_steps, max(0.02, left / self.decay_share))


class Trainer:
    """Trains `model` on `loss(ids, labels)`; Muon moves the matrices, AdamW the embeddings and the norms."""

    def __init__(self, model: nn.Module, loss: Callable[..., torch.Tensor], plan: Plan, folder: Path):
        self.model, self.plan, self.folder = model, plan, folder
        self.loss = torch.compile(loss, dynamic=False)  # rows come in few shapes
        matrices, others = [], []
        for name, parameter in model.named_parameters():
            (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
        self.optimizers = [
            torch.optim.Muon(
                matrices, lr=plan.muon_rate, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(others, lr=plan.adam_rate, betas=(0.9, 0.95), weight_decay=0.01),
        ]
        self.rates = [plan.muon_rate, plan.adam_rate]
        self.progress = Progress()
        folder.mkdir(parents=True, exist_ok=True)

    def resume(self) -> None:
        """Goes on from the folder's last checkpoint, its clock included."""
        saved = torch.load(self.folder / "last.pt", weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.progress = Progress(**saved["progress"])

    def run(self, batches: Iterator[Batch], evaluate: Callable[[], float]) -> Progress:
        """Trains until the budget is spent; the weights with the least `evaluate()` are in `best.pt`."""
        progress = self.progress
        started = time.monotonic() - progress.seconds
        running = None
        while (seconds := time.monotonic() - started) < 60 * self.plan.minutes:
            factor = self.plan.rate(progress.step, seconds)
            ids, labels = next(batches)
            value = self._step(ids, labels, factor)
            running = value if running is None else 0.97 * running + 0.03 * value
            progress.step += 1
            progress.tokens += ids.numel()
            progress.learned_tokens += int((labels >= 0).sum())
            progress.seconds = time.monotonic() - started
            if progress.step % 20 == 0:
                self._say(loss=round(running, 4), rate=round(factor, 3))
            if progress.step % self.plan.evaluate_every == 0:
                self._keep(evaluate)
                progress.seconds = time.monotonic() - started
        self._keep(evaluate)
        return progress

    @staticmethod
    def _bfloat16() -> torch.autocast:
        # Entered anew for every step: inside, casts of the weights are cached and would outlive an update.
        return torch.autocast("cpu", dtype=torch.bfloat16)

    def _step(self, ids: torch.Tensor, labels: torch.Tensor, factor: float) -> float:
        self.model.train()
        with self._bfloat16():
            loss = self.loss(ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def _keep(self, evaluate: Callable[[], float]) -> None:
        progress = self.progress
        with self._bfloat16():
            value = evaluate()
        progress.history.append(
            {"step": progress.step, "seconds": round(progress.seconds), "held_out": value}
        )
        self._say(held_out=round(value, 4))
        if value < progress.best:
            progress.best = value
            torch.save(
                {"model": self.model.state_dict(), "progress": vars(progress)}, self.folder / "best.pt"
            )
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": vars(progress),
        }
        torch.save(state, self.folder / "last.pt.new")
        (self.folder / "last.pt.new").replace(self.folder / "last.pt")

    def _say(self, **values: float) -> None:
        progress = self.progress
        speed = round(progress.tokens / max(1e-9, progress.seconds))
        line = {"step": progress.step, "minutes": round(progress.seconds / 60, 2), **values}
        print(to_json({**line, "tokens": progress.tokens, "tokens_per_second": speed}), flush=True)
