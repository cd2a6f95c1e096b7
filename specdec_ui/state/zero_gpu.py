"""Answers on a Space with ZeroGPU, where a GPU is lent for one call at a time to a process forked for it.

The weights are loaded here, once, before the page is up; what goes to a worker is plain data, and so is what
comes back. A worker keeps nothing for the next call. Import it before torch; it knows nothing of components.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

# transformers would read weights in threads of its own, where ZeroGPU's stand-in for CUDA is not in force.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")

import gradio as gr
import spaces

import specdec_core as sd
from specdec_core.metrics import summarize
from specdec_core.trace import Round

from .holder import Progress, import_engine

RUNNER_REASON = (
    "ZeroGPU lends a GPU for one answer at a time, to a process of its own: no CUDA graph and no cache lives "
    "on there, so each message reads its conversation anew"
)
QUANTIZATION = "none"
"""bitsandbytes would quantize on the CPU at every start of the Space (14 million weights a second on two
cores, so ten minutes for 9 billion), and the GPU that is lent has room for every preset in bfloat16.
"""
START_S = 20
"""For moving the weights onto the GPU, the first forwards and the prompt."""
MEASURING_S = 10
SECONDS_A_TOKEN = 0.05
LONGEST_S = 120
"""What a visitor without an account may use in a day."""

Peer = Literal["assisted", "unassisted"]


@dataclass(frozen=True)
class Question:
    """What a worker is asked. `sampled` are the ids of the answers before; `costs` None until measured;
    `peer` where transformers' own generate is to answer.
    """

    messages: list[dict[str, str]]
    settings: sd.Settings
    sampled: dict[str, list[int]]
    costs: dict[str, Any] | None
    peer: Peer | None = None


@dataclass(frozen=True)
class Learned:
    """What the next worker is to know; the last thing that a worker says."""

    sampled: dict[str, list[int]]
    costs: dict[str, Any]


@dataclass
class Session:
    """One conversation: the ids that were sampled for it."""

    sampled: dict[str, list[int]] = field(default_factory=dict)

    def close(self) -> None:
        """There are no caches to give up."""


_loaded: Any = None
"""The engine whose weights every worker inherits."""
_warm = False
"""Whether this process, a worker, has computed before."""


def load(preset: Any, on_progress: Progress) -> tuple[ZeroGpuEngine, Any]:
    """The engine and the gate's report. Only the main thread can: in others CUDA has no stand-in.

    Raises what the engine raises.
    """
    global _loaded
    _loaded = import_engine().load(
        preset, quantization=QUANTIZATION, on_progress=on_progress, for_workers=True
    )
    return ZeroGpuEngine(_loaded), _loaded.report


class ZeroGpuEngine:
    """What the page uses of an Engine, each answer made by a worker."""

    def __init__(self, engine: Any) -> None:
        self.info = replace(engine.info, runner_reason=RUNNER_REASON)
        self.report = engine.report
        self.default_settings = engine.default_settings
        self.costs: Mapping[str, Any] = {}
        self._engine = engine

    def session(self) -> Session:
        """A conversation; pass it to `stream`."""
        return Session()

    def stream(
        self,
        messages: list[dict[str, str]],
        settings: sd.Settings | None = None,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Round]:
        """As Engine.stream. Raises SpecDecError too where no GPU was to be had, or it was taken back."""
        return self._ask(messages, settings, session or Session(), cancel)

    def peer_stream(
        self,
        messages: list[dict[str, str]],
        settings: sd.Settings | None = None,
        *,
        assisted: bool,
        cancel: threading.Event | None = None,
    ) -> Iterator[Round]:
        """As Engine.peer_stream, and with `stream`'s errors."""
        return self._ask(messages, settings, Session(), cancel, "assisted" if assisted else "unassisted")

    def margin(self, messages: Any, answer: Any, settings: sd.Settings) -> None:
        """Engine.margin is not worth a GPU's call."""

    def _ask(
        self,
        messages: list[dict[str, str]],
        settings: sd.Settings | None,
        session: Session,
        cancel: threading.Event | None,
        peer: Peer | None = None,
    ) -> Iterator[Round]:
        settings = settings or self.default_settings
        question = Question(messages, settings, session.sampled, dict(self.costs) or None, peer)
        started = time.perf_counter()
        rounds: list[Round] = []
        first_token_s = 0.0
        try:
            with closing(answer(question)) as said:
                for item in said:
                    if isinstance(item, Learned):
                        session.sampled, self.costs = item.sampled, item.costs
                        continue
                    if isinstance(item, sd.SpecDecError):
                        raise item
                    first_token_s = first_token_s or time.perf_counter() - started
                    rounds.append(item)
                    if cancel is not None and cancel.is_set() and item.finish_reason is None:
                        yield _cancelled(rounds, first_token_s)
                        return
                    yield item
        except gr.Error as error:
            raise sd.SpecDecError(_in_words(error, seconds(question))) from error

    def unload(self) -> None:
        """Frees the weights."""
        self._engine.unload()


def seconds(question: Question) -> int:
    """How long a GPU is asked for; it is taken back then. Less is had sooner, and more of it in a day."""
    longest = START_S + SECONDS_A_TOKEN * question.settings.max_new_tokens
    if question.costs is None:
        longest += MEASURING_S
    return min(round(longest), LONGEST_S)


@spaces.GPU(duration=seconds)
def answer(question: Question) -> Iterator[Round | Learned | sd.SpecDecError]:
    """In a worker: the rounds, and at last what was learned; an error that is fit to be shown, as it is."""
    global _warm
    try:
        if not _warm:
            _loaded.warm_up(question.costs)
            _warm = True
        elif question.costs:
            _loaded.costs.update(question.costs)
        session = _loaded.session(question.sampled)
        if question.peer is None:
            yield from _loaded.stream(question.messages, question.settings, session)
        else:
            assisted = question.peer == "assisted"
            yield from _loaded.peer_stream(question.messages, question.settings, assisted=assisted)
        yield Learned(session.sampled, dict(_loaded.costs))
    except sd.SpecDecError as error:
        yield error


def _cancelled(rounds: list[Round], first_token_s: float) -> Round:
    """The last round as the answer's end."""
    stats = summarize(rounds, time_to_first_token_s=first_token_s, prompt_tokens=0)
    return replace(rounds[-1], finish_reason="cancelled", stats=stats)


def _in_words(error: gr.Error, asked_s: int) -> str:
    """What ZeroGPU said, and what to do."""
    said = f"{error.title}: {error.message}".rstrip(". ")
    if "aborted" in said:
        return (
            f"{said}. The answer took longer than the {asked_s} seconds that it had the GPU for, or its "
            "worker broke off. Set a shorter “Longest answer” and send again."
        )
    return f"{said}. Try again later, or set a shorter “Longest answer”: it asks for less time."
