"""A loaded pair shared by many sessions: loading behind the gate, rounds in turn, cancellation, limits."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from .admission import UNLOADED, Admission
from .chat_engine import ChatSession, Peer
from .drafting.length import StepCosts
from .errors import LoadError, SpecDecError
from .fair_lock import FairLock
from .gate.report import PairReport
from .llama_cpp import llama_cpp_rounds, stop_server
from .loading.assemble import load_pair
from .loading.engine_info import EngineInfo
from .loading.failures import raise_load_failure
from .loading.placement import MaxMemory
from .loading.plan import LoadOptions, plan_pair
from .loading.warm_up import measured_costs, rehearse
from .out_of_memory import release_memory
from .pair import LoadedPair, token_margin
from .peers import peer_rounds
from .preset import Preset
from .progress import Progress, Watch
from .session import Session
from .settings import Quantization, Settings, VocabPadding, require_settings
from .text.prompting import Prompt
from .trace import DraftSource, FinishReason, Round, Stats, emitted_ids

DEFAULT_CACHE_BYTES = 2 * 2**30
_ONLY_LOADED = "answers are made in worker processes, and a graph captured here would not work in them"


@dataclass(frozen=True, slots=True)
class Result:
    """A whole answer; `thought` is the text of a thought before it."""

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    rounds: list[Round]
    stats: Stats
    finish_reason: FinishReason
    thought: str = ""


class Engine:
    """A loaded pair that answers; `Engine.load` makes one. `report` is the gate's, None for a target alone.

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
        self.admission = Admission(max_cache_bytes)
        self._pair: LoadedPair | None = pair
        self._turn = FairLock()
        self._abort = threading.Event()

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
        quantization: Quantization | None = None,
        drafter_quantization: Quantization | None = None,
        vocab_padding: VocabPadding | None = None,
        on_progress: Progress | None = None,
        cancel: threading.Event | None = None,
        for_workers: bool = False,
    ) -> Engine:
        """Check the pair, then load it.

        Either `preset`, or `target` with or without `drafter` (Hub ids or folders, LoRA adapters among them;
        `revision` is the target's). `quantization` (none, int8, on CUDA nf4, on a CPU int4)
        overrides the preset's for both models, `drafter_quantization` for the drafter. `device` is cpu, cuda,
        cuda:N or auto, which splits a target that is too large over all GPUs, memory and disk, within
        `max_memory` ({"cuda:0": "20GiB"}).

        Setting `cancel` ends the load between two steps or two pieces of a download with LoadCancelledError;
        an exception of `on_progress` ends it too, and is passed on. With `for_workers` nothing is computed
        here: forked processes answer, and each calls `warm_up` first.

        Raises PresetError, IncompatiblePairError with the gate's report, PairUncheckableError, and LoadError,
        also for a pair whose logits are not finite.
        """
        watch = Watch(on_progress, cancel)
        plan = plan_pair(
            LoadOptions(
                preset=preset,
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
        )
        loaded = load_pair(plan, watch, _ONLY_LOADED if for_workers else None)
        report = loaded.report if plan.drafter is not None else None
        engine = cls(loaded.pair, loaded.info, loaded.settings, report=report)
        del loaded  # which would keep the weights after `unload`
        try:
            if not for_workers:
                watch.say("Warming up", 0.95)
                engine.warm_up()
            watch.say("Ready", 1.0)
        except Exception as error:
            engine.unload()
            raise_load_failure(plan, watch, error)
        return engine

    @property
    def max_cache_bytes(self) -> int:
        """Bound on the memory of all sessions' caches; the longest idle ones are freed first."""
        return self.admission.max_cache_bytes

    @max_cache_bytes.setter
    def max_cache_bytes(self, value: int) -> None:
        self.admission.max_cache_bytes = value

    def session(self, sampled: Mapping[str, Sequence[int]] | None = None) -> Session:
        """Begin a conversation, whose caches are kept between turns; pass it to `stream`. `sampled` comes
        from an earlier session of the same conversation.
        """
        session = Session(self.pair, sampled)
        self.admission.register(session)
        return session

    def stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        session: ChatSession | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[Round, None, None]:
        """Yield the rounds of the answer to `prompt` (messages, or a str as a raw prompt), as decoded.

        The last has the finish reason and the stats. Setting `cancel` ends the answer after the round in
        progress; closing the iterator early is safe too. Raises SettingsError and PromptError, and
        AnswerError where logits are not finite or memory runs out.
        """
        pair = self.pair
        if session is None:
            session = self.session()
        elif not isinstance(session, Session) or not session.belongs_to(pair):
            raise LoadError(
                "This conversation began with another pair. Begin a new one with engine.session()."
            )
        settings = pair.feasible(self._settings(settings))
        return self._stream(prompt, settings, session, cancel or threading.Event())

    def generate(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        session: Session | None = None,
        cancel: threading.Event | None = None,
    ) -> Result:
        """Return the whole answer; arguments and errors are those of `stream`."""
        session = session or self.session()
        rounds = list(self.stream(prompt, settings, session, cancel))
        last = rounds[-1]
        if last.stats is None or last.finish_reason is None:
            raise SpecDecError("The answer ended without a last round. This is a bug; please report it.")
        return Result(
            text="".join(rnd.text for rnd in rounds),
            token_ids=emitted_ids(rounds),
            prompt_token_ids=session.prompt_ids,
            rounds=rounds,
            stats=last.stats,
            finish_reason=last.finish_reason,
            thought="".join(rnd.thought for rnd in rounds),
        )

    def peer_stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        *,
        peer: Peer,
        cancel: threading.Event | None = None,
    ) -> Generator[Round, None, None]:
        """Yield the answer of other code with the target's weights: a round of plain tokens a step, as drafts
        are not reported, without alternatives. Other answers wait for its end.

        llama.cpp answers from the GGUF file in the target's folder, which it loads the first time. Raises
        SettingsError, PromptError, and SpecDecError for what the other code does not support.
        """
        pair, settings = self.pair, self._settings(settings)
        pair.require_fitting(settings)
        cancel = cancel or threading.Event()

        def cancelled() -> bool:
            return cancel.is_set() or self._abort.is_set()

        with self._answering(self.session()):
            if peer == "llama_cpp":
                rounds = llama_cpp_rounds(pair, prompt, settings, self._turn, cancelled)
            else:
                assisted = peer == "assisted"
                rounds = peer_rounds(pair, prompt, settings, assisted, self._turn, cancelled, self._make_room)
            with closing(rounds):
                yield from rounds

    def margin(self, prompt: Prompt, answer: Sequence[int], settings: Settings) -> float:
        """Return the difference between the two best scores for the token after `answer`: logits at
        temperature 0, log probability plus noise with coupled verification; infinite where only one token is
        possible. Raises SettingsError, PromptError and AnswerError.
        """
        pair, settings = self.pair, require_settings(settings)
        pair.require_fitting(settings)
        prompt_ids = pair.prompter.encode(prompt, thinking=settings.thinking)
        with self._turn:
            return token_margin(pair, [*prompt_ids, *answer], len(prompt_ids), settings, self._make_room)

    def unload(self, timeout_s: float = 60.0) -> None:
        """Free the weights. Answers in progress may finish within `timeout_s`, then are cancelled; new ones
        are refused from now on.
        """
        self.admission.close()
        if not self.admission.wait_until_idle(timeout_s):
            self._abort.set()
            self.admission.wait_until_idle(timeout_s)
        self.admission.close_sessions()
        if self._pair is not None and self._pair.gguf is not None:
            stop_server(self._pair.gguf)
        self._pair = None
        release_memory()

    def _stream(
        self, prompt: Prompt, settings: Settings, session: Session, cancel: threading.Event
    ) -> Generator[Round, None, None]:
        with self._answering(session):
            with self._turn:
                if self.admission.active == 1:  # this answer alone
                    self.pair.settle()
            rounds = session.rounds(
                prompt, settings, lambda: cancel.is_set() or self._abort.is_set(), self._make_room
            )
            with closing(_taking_turns(rounds, self._turn)) as in_turn:
                yield from in_turn

    def _settings(self, settings: Settings | None) -> Settings:
        return self.default_settings if settings is None else require_settings(settings)

    def _make_room(self) -> None:
        """Give up the caches of idle sessions."""
        self.admission.reset_idle()
        release_memory()

    @contextmanager
    def _answering(self, session: Session) -> Iterator[None]:
        """Hold the session for one answer, then update `info` with what it changed in the runners."""
        with self.admission.answering(session):
            try:
                yield
            finally:
                pair = self._pair
                if pair is not None:
                    self.info = replace(
                        self.info, runner_reason=pair.runner_reason, threads=pair.target.threads
                    )

    def warm_up(self, costs: Mapping[DraftSource, StepCosts] | None = None) -> None:
        """Run the first forward of each kind, so that no answer waits for its set-up, and measure step costs
        for gamma="auto", unless another process has measured `costs`.
        """
        pair = self.pair
        pair.costs.update(costs or measured_costs(pair))
        rehearse(pair, self.default_settings)
        prompt = str(pair.tokenizer.decode([min(9, pair.target.vocab_size - 1)])) or "a"
        gamma = 2 if pair.drafter is not None else 0
        self.generate(prompt, Settings(max_new_tokens=8, gamma=gamma, seed=0))

    @property
    def costs(self) -> Mapping[DraftSource, StepCosts]:
        """Step costs by drafter, in one-row target steps: c and v as measured so far."""
        return self.pair.costs

    @property
    def pair(self) -> LoadedPair:
        """The loaded runners and tokenizer, for measurements. Raises LoadError after `unload`."""
        if self._pair is None or self.admission.closed:
            raise LoadError(UNLOADED)
        return self._pair


def _taking_turns(rounds: Generator[Round, None, None], turn: FairLock) -> Generator[Round, None, None]:
    """Yield the same rounds, each decoded while holding the lock; the caller processes them without it."""
    try:
        while True:
            with turn:
                rnd = next(rounds, None)
            if rnd is None:
                return
            yield rnd
    finally:
        rounds.close()
