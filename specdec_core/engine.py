"""A loaded pair shared by many sessions: loading behind the gate, one round at a time, cancel, limits."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from .drafting.length import StepCosts
from .errors import LoadError, SettingsError, SpecDecError
from .fair_lock import FairLock
from .gate.report import PairReport
from .loading.assemble import EngineInfo, load_pair, memory_ran_out
from .loading.placement import MaxMemory
from .loading.plan import plan_pair
from .loading.warm_up import measured_costs, rehearse
from .loading.weights import out_of_memory, release_memory
from .pair import LoadedPair, token_margin
from .peers import peer_rounds
from .presets import Preset
from .progress import Progress, Watch
from .session import Session
from .settings import Drafting, Settings
from .text.prompting import Prompt
from .trace import FinishReason, Round, Stats, emitted_ids

DEFAULT_CACHE_BYTES = 2 * 2**30
_ONLY_LOADED = "answers are made in worker processes, and a graph captured here would not work in them"


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer."""

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    rounds: list[Round]
    stats: Stats
    finish_reason: FinishReason


class Engine:
    """Made by `Engine.load`; `report` is the gate's, None for a target alone.

    Safe to use from many threads: rounds of different answers take turns.
    """

    def __init__(
        self,
        pair: LoadedPair,
        info: EngineInfo,
        default_settings: Settings | None = None,
        *,
        report: PairReport | None = None,
        max_cache_bytes: int = DEFAULT_CACHE_BYTES,
    ) -> None:
        self.info = info
        self.report = report
        self.default_settings = default_settings or Settings()
        self.max_cache_bytes = max_cache_bytes
        self._pair: LoadedPair | None = pair
        self._turn = FairLock()
        self._idle = threading.Condition()
        self._active = 0
        self._closing = False
        self._abort = threading.Event()
        self._sessions: weakref.WeakKeyDictionary[Session, float] = weakref.WeakKeyDictionary()
        self._busy: set[int] = set()

    @classmethod
    def load(
        cls,
        preset: str | Preset | None = None,
        *,
        target: str | None = None,
        drafter: str | None = None,
        revision: str | None = None,
        drafter_revision: str | None = None,
        device: str | None = None,
        max_memory: MaxMemory | None = None,
        quantization: str | None = None,
        drafter_quantization: str | None = None,
        vocab_padding: str | None = None,
        on_progress: Progress | None = None,
        cancel: threading.Event | None = None,
        for_workers: bool = False,
    ) -> Engine:
        """Checks the pair, then loads it.

        Either `preset`, or `target` with or without `drafter` (Hub ids or folders, LoRA adapters among them;
        `revision` is the target's). `quantization` (none, nf4, int8) overrides the preset's for both models,
        `drafter_quantization` for the drafter. `device` is cpu, cuda, cuda:N or auto, which splits a target
        that is too large over all GPUs, memory and disk, within `max_memory` ({"cuda:0": "20GiB"}).

        Setting `cancel` ends the load between two steps or two pieces of a download with LoadCancelledError;
        so does what `on_progress` raises, with that. With `for_workers` nothing is computed here: processes
        forked off this one answer, and each calls `warm_up` first.

        Raises PresetError, IncompatiblePairError with the gate's report, PairUncheckableError, LoadError.
        """
        watch = Watch(on_progress, cancel)
        plan = plan_pair(
            preset,
            target=target,
            drafter=drafter,
            revision=revision,
            drafter_revision=drafter_revision,
            device=device,
            max_memory=max_memory,
            quantization=quantization,
            drafter_quantization=drafter_quantization,
            vocab_padding=vocab_padding,
        )
        pair, info, report = load_pair(plan, watch, _ONLY_LOADED if for_workers else None)
        engine = cls(pair, info, plan.settings, report=report if plan.drafter is not None else None)
        try:
            if not for_workers:
                watch.say("Warming up", 0.95)
                engine.warm_up()
            watch.say("Ready", 1.0)
        except Exception as error:
            engine.unload()
            release_memory(error)
            if out_of_memory(error):
                raise memory_ran_out(plan, error) from None
            raise
        return engine

    def session(self, sampled: Mapping[str, Sequence[int]] | None = None) -> Session:
        """A conversation's caches, kept between turns; pass it to `stream`. `sampled` is that of the session
        that the conversation had before.
        """
        session = Session(self.pair, sampled)
        with self._idle:
            self._sessions[session] = time.monotonic()
        return session

    def stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Iterator[Round]:
        """Rounds of the answer to `prompt` (messages, or a str as a raw prompt), as they are decoded.

        The last has the finish reason and the stats. Setting `cancel` ends the answer after the round in
        progress; closing the iterator early is safe too. Raises SettingsError and PromptError.
        """
        pair = self.pair
        if session is not None and not session.belongs_to(pair):
            raise LoadError(
                "This conversation began with another pair. Begin a new one with engine.session()."
            )
        settings = settings or self.default_settings
        if settings.drafting == "model" and pair.drafter is None and settings.gamma != 0:
            raise SettingsError(
                "No drafter is loaded: set gamma to 0 for plain decoding, or load a pair with a drafter."
            )
        return self._stream(prompt, settings, session or self.session(), cancel or threading.Event())

    def generate(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """The whole answer at once; arguments and errors are those of `stream`."""
        session = session or self.session()
        rounds = list(self.stream(prompt, settings, session, cancel))
        last = rounds[-1]
        return Result(
            text="".join(rnd.text for rnd in rounds),
            token_ids=emitted_ids(rounds),
            prompt_token_ids=session.prompt_ids,
            rounds=rounds,
            stats=last.stats,
            finish_reason=last.finish_reason,
        )

    def peer_stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        *,
        assisted: bool,
        cancel: threading.Event | None = None,
    ) -> Iterator[Round]:
        """What transformers' own generate answers, with the drafter as its assistant where `assisted`: a
        round of plain tokens a step, as it does not say what was drafted. Other answers wait for its end.

        Raises SettingsError, PromptError, and SpecDecError where transformers cannot do it.
        """
        pair, settings = self.pair, settings or self.default_settings
        cancel = cancel or threading.Event()
        with _Answering(self, self.session()):
            rounds = peer_rounds(
                pair, prompt, settings, assisted, self._turn, lambda: cancel.is_set() or self._abort.is_set()
            )
            with closing(rounds):
                yield from rounds

    def margin(
        self, messages: Sequence[Mapping[str, str]], answer: Sequence[int], settings: Settings
    ) -> float:
        """How far apart the two best scores were for the token after those of `answer`: logits at temperature
        0, log probability plus noise with coupled verification. Raises PromptError.
        """
        pair = self.pair
        context = [*pair.prompter.encode_chat(messages), *answer]
        with self._turn:
            return token_margin(pair, context, settings)

    def unload(self, timeout_s: float = 60.0) -> None:
        """Frees the weights. Answers in progress may finish for `timeout_s`, then are cancelled; new ones
        are refused from now on.
        """
        with self._idle:
            self._closing = True
            if not self._idle.wait_for(lambda: self._active == 0, timeout_s):
                self._abort.set()
                self._idle.wait_for(lambda: self._active == 0, timeout_s)
        for session in list(self._sessions):
            session.close()
        self._pair = None
        release_memory()

    def _stream(
        self, prompt: Prompt, settings: Settings, session: Session, cancel: threading.Event
    ) -> Iterator[Round]:
        with _Answering(self, session):
            rounds = session.rounds(prompt, settings, lambda: cancel.is_set() or self._abort.is_set())
            with closing(_taking_turns(rounds, self._turn)) as in_turn:
                yield from in_turn

    def _bound_caches(self, newest: Session) -> None:
        """Takes the caches of the sessions that were idle longest until all fit the bound."""
        self._sessions[newest] = time.monotonic()
        oldest_first = sorted(self._sessions.items(), key=lambda item: item[1])
        held = sum(session.size_bytes for session, _ in oldest_first)
        for session, _ in oldest_first:
            if held <= self.max_cache_bytes or session is newest:
                break
            if id(session) not in self._busy:
                held -= session.size_bytes
                session.reset()

    def warm_up(self, costs: Mapping[Drafting, StepCosts] | None = None) -> None:
        """Pays for what the first forward of each kind sets up, before a person waits for it, and measures
        what steps cost, for gamma="auto", unless `costs` has it from another process.
        """
        self.pair.costs.update(costs or measured_costs(self.pair))
        rehearse(self.pair, self.default_settings)
        prompt = self._pair.tokenizer.decode([min(9, self._pair.target.vocab_size - 1)]) or "a"
        gamma = 2 if self._pair.drafter is not None else 0
        self.generate(prompt, Settings(max_new_tokens=8, gamma=gamma, seed=0))

    @property
    def costs(self) -> Mapping[Drafting, StepCosts]:
        """What steps cost by way of drafting, in one-row target steps: c and v as measured so far."""
        return self.pair.costs

    @property
    def pair(self) -> LoadedPair:
        """The loaded runners and tokenizer, for measurements. Raises LoadError after `unload`."""
        if self._pair is None or self._closing:
            raise LoadError("This pair was unloaded. Load one again.")
        return self._pair


class _Answering:
    """Counts an answer in progress, and keeps a session to one answer at a time."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session

    def __enter__(self) -> None:
        engine = self._engine
        with engine._idle:
            _ = engine.pair  # raises where it was unloaded
            if id(self._session) in engine._busy:
                raise SpecDecError("This conversation is still being answered. Stop it, or wait for its end.")
            engine._busy.add(id(self._session))
            engine._active += 1

    def __exit__(self, *exception: object) -> None:
        engine = self._engine
        with engine._idle:
            engine._busy.discard(id(self._session))
            engine._active -= 1
            engine._idle.notify_all()
            if engine._pair is not None and engine._pair.runner_reason != engine.info.runner_reason:
                engine.info = replace(engine.info, runner_reason=engine._pair.runner_reason)
            engine._bound_caches(self._session)


def _taking_turns(rounds: Iterator[Round], turn: FairLock) -> Iterator[Round]:
    """The same rounds, each decoded while holding the lock; it is free while the caller looks at one."""
    try:
        while True:
            with turn:
                rnd = next(rounds, None)
            if rnd is None:
                return
            yield rnd
    finally:
        rounds.close()
