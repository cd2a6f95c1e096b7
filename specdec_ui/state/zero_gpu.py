"""Engine for Spaces with ZeroGPU, where each call has a GPU of its own in a forked worker process.

The weights are loaded in this process, once, before the page is up. Plain data goes to a worker and comes
back; a worker keeps nothing for the next call. Import this before torch. Knows nothing of components.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

# transformers reads weights in threads, where ZeroGPU's emulation of CUDA is not active.
os.environ.setdefault("HF_DEACTIVATE_ASYNC_LOAD", "1")

import gradio as gr
import spaces  # pyright: ignore[reportMissingImports] -- installed on Spaces only

import specdec_core as sd

from .holder import import_engine

RUNNER_REASON = (
    "ZeroGPU lends a GPU for one answer at a time, to a process of its own: no CUDA graph and no cache lives "
    "on there, so each message reads its conversation anew"
)
QUANTIZATION = "none"
"""Format of the weights: bitsandbytes would quantize on the CPU at every start of the Space (14 million
weights a second on two cores, ten minutes for 9 billion), and the GPU has room for all presets in bfloat16.
"""
START_S = 20
"""Time for moving the weights onto the GPU, the first forwards and the prompt."""
MEASURING_S = 10
SECONDS_A_TOKEN = 0.05
LONGEST_S = 120
"""Daily quota of a visitor without an account."""

Sampled = Mapping[str, Sequence[int]]
"""Sampled ids of a conversation's answers, by text."""


@dataclass(frozen=True)
class Question:
    """Input of a worker. `sampled` are the ids of the answers so far; `costs` are None until measured; `peer`
    is set if other code answers.
    """

    prompt: sd.Prompt
    settings: sd.Settings
    sampled: Sampled
    costs: Mapping[Any, Any] | None
    peer: sd.Peer | None = None


@dataclass(frozen=True)
class Learned:
    """Last output of a worker: input for the next one."""

    sampled: Sampled
    costs: Mapping[Any, Any]


@dataclass
class Session:
    """One conversation: the ids that were sampled for it."""

    sampled: Sampled = field(default_factory=dict)

    def close(self) -> None:
        """Do nothing: workers keep no caches."""


_loaded: sd.Engine | None = None
"""Engine whose weights every worker inherits."""
_warm = False
"""True in a worker that has computed before."""


def load(preset: sd.Preset, on_progress: sd.Progress, cancel: threading.Event) -> sd.ChatEngine:
    """Load the weights that every worker inherits. Raises what Engine.load raises.

    Call it from the main thread: ZeroGPU's emulation of CUDA is not active in others.
    """
    global _loaded
    _loaded = import_engine().load(
        preset, quantization=QUANTIZATION, on_progress=on_progress, cancel=cancel, for_workers=True
    )
    return ZeroGpuEngine(_loaded)


class ZeroGpuEngine:
    """A ChatEngine whose answers are decoded by workers; `engine` has the weights that they inherit."""

    def __init__(self, engine: sd.Engine) -> None:
        self.info = replace(engine.info, runner_reason=RUNNER_REASON)
        self.report = engine.report
        self.default_settings = engine.default_settings
        self.costs: Mapping[Any, sd.MeasuredCosts] = {}
        self.engine = engine

    def session(self) -> Session:
        """Begin a conversation, to be passed to `stream`."""
        return Session()

    def stream(
        self,
        prompt: sd.Prompt,
        settings: sd.Settings | None = None,
        session: sd.ChatSession | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[sd.Round]:
        """Yield the rounds of an answer, as Engine.stream does. Raises SpecDecError too if no GPU is free, or
        the time on it is over.
        """
        own = session if isinstance(session, Session) else Session()
        return self._rounds(prompt, settings, own, cancel)

    def peer_stream(
        self,
        prompt: sd.Prompt,
        settings: sd.Settings | None = None,
        *,
        peer: sd.Peer,
        cancel: threading.Event | None = None,
    ) -> Generator[sd.Round]:
        """Yield rounds as Engine.peer_stream does, with `stream`'s errors."""
        return self._rounds(prompt, settings, Session(), cancel, peer)

    def margin(self, prompt: sd.Prompt, answer: Sequence[int], settings: sd.Settings) -> None:
        """Return None: a margin is not worth a call of its own on the GPU."""

    def _rounds(
        self,
        prompt: sd.Prompt,
        settings: sd.Settings | None,
        session: Session,
        cancel: threading.Event | None,
        peer: sd.Peer | None = None,
    ) -> Generator[sd.Round]:
        settings = settings or self.default_settings
        question = Question(prompt, settings, session.sampled, dict(self.costs) or None, peer)
        started = time.perf_counter()
        rounds: list[sd.Round] = []
        first_token_s = 0.0
        try:
            with closing(answer(question)) as items:
                for item in items:
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
        """Free the weights."""
        self.engine.unload()


def seconds(question: Question) -> int:
    """Return the time on a GPU to request for an answer, in s. Shorter requests wait less and use less of the
    daily quota.
    """
    longest = START_S + SECONDS_A_TOKEN * question.settings.max_new_tokens
    if question.costs is None:
        longest += MEASURING_S
    return min(round(longest), LONGEST_S)


@spaces.GPU(duration=seconds)
def answer(question: Question) -> Generator[sd.Round | Learned | sd.SpecDecError]:
    """Yield, in a worker, the rounds of an answer, then Learned; a SpecDecError is yielded, not raised."""
    global _warm
    assert _loaded is not None, "load() runs before the first worker is forked"
    try:
        if not _warm:
            _loaded.warm_up(question.costs)
            _warm = True
        elif question.costs:
            _loaded.pair.costs.update(question.costs)
        session = _loaded.session(question.sampled)
        if question.peer is None:
            yield from _loaded.stream(question.prompt, question.settings, session)
        else:
            yield from _loaded.peer_stream(question.prompt, question.settings, peer=question.peer)
        yield Learned(session.sampled, dict(_loaded.costs))
    except sd.SpecDecError as error:
        yield error


def _cancelled(rounds: list[sd.Round], first_token_s: float) -> sd.Round:
    """Return the last round as the end of a cancelled answer."""
    thought = [rnd for rnd in rounds if rnd.thought]
    answered = next((at for at, rnd in enumerate(rounds) if rnd.text), len(rounds))
    count = sum(len(rnd.emitted) for rnd in rounds[:answered]) if thought else 0
    stats = sd.summarize(rounds, time_to_first_token_s=first_token_s, prompt_tokens=0, thought_tokens=count)
    return replace(rounds[-1], finish_reason="cancelled", stats=stats)


def _in_words(error: gr.Error, requested_s: int) -> str:
    """Return ZeroGPU's error with advice."""
    problem = f"{error.title}: {error.message}".rstrip(". ")
    if "aborted" in problem:
        return (
            f"{problem}. The answer took longer than the {requested_s} seconds that it had the GPU for, or "
            "its worker broke off. Set a shorter “Longest answer” and send again."
        )
    return f"{problem}. Try again later, or set a shorter “Longest answer”: it asks for less time."


if TYPE_CHECKING:
    _: type[sd.ChatEngine] = ZeroGpuEngine
