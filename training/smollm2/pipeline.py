"""A whole run: load the target, let it write conversations, train drafters on them, save and evaluate.

Divides the time between the phases and goes on with less where one fails. Knows nothing of the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from . import shards
from .conversations import ConversationStore, Selection
from .drafter import Drafter
from .evaluation import MAX_GAMMA, evaluate
from .generation import GenerationPlan, generate
from .gguf_weights import GgufWeights
from .inputs import Inputs, read_parts
from .matmul import accumulates_in_float32, float32_product
from .recovery import first_success
from .run_log import RunLog
from .target import Target
from .training import TrainingPlan, train

EXIT_S = 6
"""Seconds from the last evaluation to the end of the process."""
IDS_PER_STATE = 1.6
"""Tokens of a conversation for each of its answer: prefix and request come on top."""
MAX_HELD_OUT = 1000
"""Generated conversations held out, at most; a fiftieth of them otherwise."""


@dataclass(frozen=True)
class RunPlan:
    """Settings of a run; times are in seconds from the start of the command."""

    data: Path
    out: Path
    seconds: float
    device: str
    dtype: str
    slots: int
    max_positions: int
    generate_share: float
    layer_sets: Sequence[Sequence[int]]
    batch_tokens: int
    peak_rate: float
    tv_weight: float
    weight_decay: float
    baseline: Path | None
    store_gib: float
    shard_mb: float
    conversations_mb: float
    reserve_s: float
    seed: int
    safe: bool


class Run:
    """State that the phases share: the target, the stored conversations and those held out."""

    def __init__(self, plan: RunPlan, log: RunLog):
        self.plan, self.log = plan, log
        self.device = torch.device(plan.device)
        torch.manual_seed(plan.seed)
        if self.device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)  # its plans are compiled for every new shape
            torch.backends.cuda.matmul.allow_tf32 = False
            name = torch.cuda.get_device_name(self.device)
            log.write("start", torch=torch.__version__, device=name)
        inputs = Inputs.read(plan.data)
        self.template = inputs.template
        self.head_ids = torch.tensor(inputs.head_ids, device=self.device)
        self.target = self._load_target(inputs)
        self.held_out = self._store_held_out(inputs)
        self.store = self._empty_store()
        self.store.seen |= self.held_out.seen
        self.training_part = self.held_out_part = self.store.select()
        self.check_ids = max((each.ids for each in inputs.held_out), key=len)

    def _load_target(self, inputs: Inputs) -> Target:
        data = torch.from_numpy(read_parts(self.plan.data, inputs.weight_bytes)).to(self.device)
        weights = GgufWeights(data, inputs.tensors)
        dtype = getattr(torch, self.plan.dtype)
        target = Target.load(weights, inputs.shape, self.plan.max_positions, dtype)
        wide = accumulates_in_float32(self.device.type, dtype)
        self.log.write("load", parameters=target.parameters, float32_accumulation=wide)
        return target

    @torch.no_grad()
    def _store_held_out(self, inputs: Inputs) -> ConversationStore:
        fitting = [each for each in inputs.held_out if len(each.ids) <= self.plan.max_positions]
        size = sum(len(each.ids) for each in fitting)
        store = ConversationStore(self.target, size, size)
        store.add_texts(self.target, fitting)
        self.log.write("held out", conversations=len(store), loss=self._loss_on(store))
        return store

    def _loss_on(self, store: ConversationStore) -> float:
        """Return the target's cross-entropy in nats on a store's answers, a check of the loaded weights."""
        total = 0.0
        for index in range(len(store)):
            batch = store.batch(store.select(slice(index, index + 1)))
            logits = float32_product(store.states[batch.state_rows], self.target.embedding.T)
            following = batch.ids.flatten()[batch.positions + 1]
            total += float(functional.cross_entropy(logits, following, reduction="sum"))
        return total / max(1, store.answer_tokens)

    def _empty_store(self) -> ConversationStore:
        row_bytes = self.target.shape.hidden * self.target.dtype.itemsize
        states = int(self.plan.store_gib * 2**30 / row_bytes)
        store = first_success(
            self.log,
            "store",
            [
                partial(ConversationStore, self.target, int(size * IDS_PER_STATE), size)
                for size in (states, states // 2, states // 4)
            ],
            self.free_memory,
        )
        if store is None:
            raise MemoryError(f"no room for {states // 4:,} states: lower --store-gib")
        return store

    def free_memory(self) -> None:
        """Return unused memory to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.no_grad()
    def generate(self) -> None:
        """Fill the store, and hold some of the conversations out."""
        plan = self.plan
        until = plan.generate_share * plan.seconds
        attempts = [
            partial(
                generate,
                self.target,
                self.template,
                self.store,
                GenerationPlan(slots, plan.max_positions, until, fast and not plan.safe),
                self.check_ids,
                self.log,
            )
            for slots, fast in (
                (plan.slots, True),
                (plan.slots // 2, True),
                (plan.slots // 2, False),
                (plan.slots // 4, False),
            )
        ]
        first_success(self.log, "generate", attempts, self.free_memory)
        self.free_memory()
        count = len(self.store)
        if count < 2:
            raise RuntimeError(f"{count} conversations after {until:.0f} s: give --seconds more")
        held_out = np.random.default_rng(0).permutation(count)[: min(MAX_HELD_OUT, count // 50)]
        self.training_part = self.store.select(np.setdiff1d(np.arange(count), held_out))
        self.held_out_part = self.store.select(held_out)
        sample = self.store.used_ids[:1_000_000].long()
        self.log.write(
            "data",
            conversations=count,
            held_out=len(held_out),
            answer_tokens=self.store.answer_tokens,
            covered_by_head=float(torch.isin(sample, self.head_ids).float().mean()),
        )

    def distill(self, layers: Sequence[int], until: float) -> None:
        """Train, save and evaluate one drafter; the training ends at `until`."""
        plan = self.plan
        name = "drafter-" + "-".join(map(str, layers))
        attempts = [
            partial(self._train, layers, name, until, tokens)
            for tokens in (plan.batch_tokens, plan.batch_tokens // 2, plan.batch_tokens // 4)
        ]
        drafter = first_success(self.log, "train", attempts, self.free_memory)
        if drafter is None:
            return
        shape = self.target.shape
        metadata = {"target_layers": ",".join(map(str, layers)), "quantization": "int8 rows"}
        stored = shards.quantize(drafter.tensors(shape))
        paths = shards.write_shards(plan.out / name, stored, int(plan.shard_mb * 1e6), metadata)
        self.log.write("save", drafter=name, file_bytes=[path.stat().st_size for path in paths])
        self.evaluate(drafter, name)
        self.evaluate(drafter.rounded(shape), f"{name} int8")

    def _train(self, layers: Sequence[int], name: str, until: float, batch_tokens: int) -> Drafter:
        plan = self.plan
        training_plan = TrainingPlan(
            until, batch_tokens, plan.peak_rate, plan.tv_weight, plan.weight_decay, plan.seed
        )
        drafter = Drafter.from_target(self.target, layers, self.head_ids)
        return train(self.target, drafter, self.store, self.training_part, training_plan, self.log, name)

    def evaluate(self, drafter: Drafter, name: str) -> None:
        """Log the acceptance on the carried conversations and on the generated ones held out."""
        parts: list[tuple[str, ConversationStore, Selection]] = [
            ("carried", self.held_out, self.held_out.select()),
            ("generated", self.store, self.held_out_part),
        ]
        for label, store, selection in parts:
            if not len(selection):
                continue
            result = evaluate(self.target, drafter, store, selection)
            self.log.write(
                "evaluate",
                drafter=name,
                conversations=label,
                tokens=result.tokens,
                acceptance={str(t): round(value, 4) for t, value in result.by_temperature.items()},
                tokens_per_round=[round(result.tokens_per_round(g), 3) for g in range(1, MAX_GAMMA + 1)],
            )

    def save_conversations(self) -> None:
        """Write the first generated conversations to `conversations.npz`, up to the plan's size."""
        every = self.store.select()
        sizes = np.cumsum(2 * every.lengths + 8)  # uint16 ids, two uint32
        count = int(np.searchsorted(sizes, self.plan.conversations_mb * 1e6))
        if not count:
            return
        first = every[slice(count)]
        np.savez(
            self.plan.out / "conversations.npz",
            ids=self.store.used_ids[: int(first.lengths.sum())].cpu().numpy().astype(np.uint16),
            lengths=first.lengths.astype(np.uint32),
            answer_starts=first.answer_starts.astype(np.uint32),
        )
        self.log.write("save", conversations=count)


def run(plan: RunPlan, started: float) -> None:
    """Distil a drafter for each set of layers; `started` is in seconds since the epoch."""
    log = RunLog(plan.out, started)
    state = Run(plan, log)
    state.generate()
    first_success(log, "save", [state.save_conversations], state.free_memory)
    if plan.baseline is not None:
        tensors = {
            name: tensor.to(state.device)
            for name, tensor in shards.dequantize(shards.read_shards(plan.baseline)).items()
        }
        state.evaluate(Drafter.from_tensors(tensors), "baseline")
    weights = [len(layers) + 1 for layers in plan.layer_sets]  # the head costs about one layer
    for index, layers in enumerate(plan.layer_sets):
        left = plan.seconds - EXIT_S - log.now()
        share = left * weights[index] / sum(weights[index:])
        until = log.now() + share - plan.reserve_s
        first_success(log, "distill", [partial(state.distill, layers, until)], state.free_memory)
    if not any(plan.out.glob("*/drafter-*.safetensors")):
        raise RuntimeError(f"no drafter was saved: see {plan.out / 'log.jsonl'}")
    peak = {"peak_gib": torch.cuda.max_memory_allocated() / 2**30} if state.device.type == "cuda" else {}
    log.write("end", **peak)
