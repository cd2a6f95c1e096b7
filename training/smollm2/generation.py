"""Conversations that the target writes by itself, with the states that predict the answers.

The method is Magpie's (Xu et al. 2024, arXiv 2406.08464): after the user mark of its template a chat model
invents a request. Knows nothing of the drafter.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import Attention, choose_attention, torch_attention
from .conversations import ConversationStore
from .decoder import Decoder
from .inputs import Template
from .matmul import float32_product
from .recovery import ContextLostError
from .run_log import RunLog
from .slots import Slots
from .target import Target

REQUEST_TEMPERATURE = 0.9
ANSWER_TEMPERATURES = (0.0, 0.5, 0.8, 1.0)
"""Temperatures of the answers, in equal parts."""
STEPS_BETWEEN_HARVESTS = 16
CHECKED_POSITIONS = 96
MAX_STATE_ERROR = 0.08
"""Largest relative error of states in bfloat16; .02 is usual."""
LOG_INTERVAL_S = 5


@dataclass(frozen=True)
class GenerationPlan:
    """Settings of a generation; `until_s` is on the run's clock, `fast` allows Triton and a CUDA graph."""

    slots: int
    max_positions: int
    until_s: float
    fast: bool


class Generator:
    """The decode step, the slots and the sampling between them; `step` is replayed as a CUDA graph."""

    def __init__(self, target: Target, template: Template, slots: int, max_positions: int, attend: Attention):
        self.decoder = Decoder(target, slots, max_positions, attend)
        self.slots = Slots(slots, max_positions, template, target.device)
        count = len(ANSWER_TEMPERATURES)
        which = torch.arange(slots, device=target.device) % count
        self._answer_temperature = torch.tensor(ANSWER_TEMPERATURES, device=target.device)[which]
        self._graph: torch.cuda.CUDAGraph | None = None

    def prime(self, ids: list[int]) -> Tensor:
        """Feed `ids`, which begin with the template's prefix, to every slot; return the states of one.

        The prefix stays in the caches, where all conversations share it.
        """
        slots = self.slots
        for position, token in enumerate(ids):
            tokens = torch.full_like(slots.current, token)
            self.decoder.step(tokens, torch.full_like(slots.positions, position))
        return self.decoder.states[0, : len(ids)].clone()

    def step(self) -> None:
        """Advance every slot by one token."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self._sample()

    def _sample(self) -> None:
        slots, decoder = self.slots, self.decoder
        logits = float32_product(decoder.step(slots.current, slots.positions), decoder.target.embedding.T)
        temperature = torch.where(slots.answering, self._answer_temperature, REQUEST_TEMPERATURE)
        # The Gumbel trick: argmax(logits - T * log E), E exponential, draws from softmax(logits / T).
        noise = torch.empty_like(logits).exponential_().log_()
        slots.advance(torch.addcmul(logits, noise, temperature[:, None], value=-1).argmax(-1))

    def capture(self) -> None:
        """Capture a step as a CUDA graph; ContextLostError where that fails."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._sample()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._sample()
        except Exception as error:
            # The random generator may be left in its capturing state.
            raise ContextLostError(f"no CUDA graph of the decode step: {error!r}"[:600]) from error
        self._graph = graph

    def harvest(self, store: ConversationStore, unfinished: bool = False) -> bool:
        """Move finished answers into the store and restart their slots; False when the store is full.

        With `unfinished`, answers under way are moved too.
        """
        slots = self.slots
        ready = slots.finished | slots.answering if unfinished else slots.finished
        which = ready.nonzero()[:, 0]
        if not len(which):
            return True
        lengths = slots.lengths()[which]
        # A slot that ended inside its request has no answer.
        starts = torch.where(slots.answering[which], slots.answer_start[which], lengths)
        lengths, starts = torch.stack([lengths, starts]).tolist()
        has_room = store.add(slots.ids[which], self.decoder.states[which], lengths, starts)
        slots.restart(which)
        return has_room


def generate(
    target: Target,
    template: Template,
    store: ConversationStore,
    plan: GenerationPlan,
    check_ids: list[int],
    log: RunLog,
) -> None:
    """Fill the store until the plan's end or until it is full.

    `check_ids` is a conversation on which the decode step is checked first. Raises RuntimeError where that
    or the check of the first stored states fails; the store is then as it was before.
    """
    attend = torch_attention
    if plan.fast:
        attend = choose_attention(target.shape, plan.max_positions, target.device, target.dtype, log)
    generator = Generator(target, template, plan.slots, plan.max_positions, attend)
    check_decoder(generator, check_ids[: min(CHECKED_POSITIONS, plan.max_positions)], log)
    graph = plan.fast and target.device.type == "cuda"
    if graph:
        generator.capture()
    log.write("generate", attention=attend.__name__, graph=graph, slots=plan.slots)

    before, begin = len(store), log.now()
    steps, logged_at = 0, begin
    has_room, checked = True, False
    while log.now() < plan.until_s and has_room:
        for _ in range(STEPS_BETWEEN_HARVESTS):
            generator.step()
        steps += STEPS_BETWEEN_HARVESTS
        has_room = generator.harvest(store)
        if not checked and len(store) - before >= 8:
            checked = True
            check_states(target, store, before, log)
        if log.now() - logged_at > LOG_INTERVAL_S:
            logged_at = log.now()
            log.write(
                "generate",
                steps=steps,
                step_ms=1e3 * (logged_at - begin) / steps,
                positions_per_s=round(plan.slots * steps / (logged_at - begin)),
                conversations=len(store) - before,
                answer_tokens=store.answer_tokens,
            )
    if has_room:
        generator.harvest(store, unfinished=True)
    log.write(
        "generate",
        done=True,
        steps=steps,
        seconds=log.now() - begin,
        conversations=len(store) - before,
        answer_tokens=store.answer_tokens,
        full=not has_room,
    )


def check_decoder(generator: Generator, ids: list[int], log: RunLog) -> None:
    """Compare the decode step with the reference forward on `ids`; RuntimeError where they differ."""
    target = generator.decoder.target
    states = generator.prime(ids).float()
    expected = target.reference_states(torch.tensor(ids, device=target.device))
    head = target.embedding.float().T
    error = float((states - expected).norm() / expected.norm())
    agreement = float(((states @ head).argmax(-1) == (expected @ head).argmax(-1)).float().mean())
    log.write("check of the decode step", state_error=error, argmax_agreement=agreement)
    if not (error < MAX_STATE_ERROR and agreement > 0.85):
        raise RuntimeError(
            f"the decode step differs from the reference forward: relative error {error:.3f}, "
            f"equal choices {agreement:.2f}"
        )


def check_states(target: Target, store: ConversationStore, before: int, log: RunLog) -> None:
    """Compare the last stored states with a whole forward.

    Where they differ, drops all conversations but the first `before` and raises RuntimeError.
    """
    batch = store.batch(store.select(slice(-6, None)))
    expected = target.states(batch.ids).flatten(0, 1)[batch.positions].float()
    difference = expected - store.states[batch.state_rows].float()
    worst = float((difference.norm(dim=-1) / expected.norm(dim=-1)).max())
    error = float(difference.norm() / expected.norm())
    log.write("check of stored states", worst_state_error=worst, state_error=error)
    if not error < MAX_STATE_ERROR:
        store.truncate(before)
        raise RuntimeError(f"stored states differ from a whole forward's: relative error {error:.3f}")
