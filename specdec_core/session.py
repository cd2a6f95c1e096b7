"""One conversation: its caches, their ids, and the sampled ids of earlier answers.

Knows the pair it was given; nothing of presets, locks or other sessions.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import dropwhile

from .decoding import Decoding, Limits, NotFiniteError
from .drafting import MODEL_FREE, SOURCES, Drafter, ModelDrafter
from .drafting.ahead import steps_ahead
from .drafting.best_offer import BestOffer
from .drafting.length import AdaptiveGamma, FixedGamma, GammaPolicy
from .errors import AnswerError, LoadError, PromptError
from .metrics import summarize
from .out_of_memory import out_of_memory, release_memory, with_second_try
from .pair import LoadedPair
from .rounds import build_round
from .runners import RewindableCache
from .sampling import Sampler, sampler_for
from .sampling.noise import KeyedNoise
from .settings import Settings, require_settings
from .text.prompting import Message, Prompt, check_messages
from .trace import DraftSource, Round, emitted_ids, first_difference

_RESERVED_AHEAD = 1024


@dataclass(slots=True)
class _Caches:
    """The caches of a conversation, with the pair they belong to."""

    pair: LoadedPair
    target: RewindableCache
    drafter: RewindableCache | None

    @classmethod
    def of(cls, pair: LoadedPair) -> _Caches:
        return cls(pair, pair.target.new_cache(), pair.drafter.new_cache() if pair.drafter else None)

    def discard(self) -> None:
        """Leave nothing of this conversation in buffers that the runners share among conversations."""
        self.pair.target.discard(self.target)
        if self.pair.drafter is not None and self.drafter is not None:
            self.pair.drafter.discard(self.drafter)

    @property
    def all(self) -> list[RewindableCache]:
        return [self.target] if self.drafter is None else [self.target, self.drafter]


class Session:
    """The KV caches of one conversation over a shared pair."""

    def __init__(self, pair: LoadedPair, sampled: Mapping[str, Sequence[int]] | None = None) -> None:
        self.prompt_ids: list[int] = []
        self.sampled: dict[str, list[int]] = {text: list(ids) for text, ids in (sampled or {}).items()}
        """The sampled ids of earlier answers by their text, from which a follow-up prompt is made."""
        self._adaptive: dict[DraftSource, AdaptiveGamma] = {}
        self._ids: list[int] = []
        self._caches: _Caches | None = _Caches.of(pair)
        self._changing_caches = threading.Lock()

    def reset(self) -> None:
        """Free the caches; the next answer prefills its whole prompt."""
        with self._changing_caches:
            if self._caches is not None:
                self._ids, self._caches = [], _Caches.of(self._caches.pair)

    def close(self) -> None:
        """Free the caches and the reference to the weights; the session cannot be used again."""
        with self._changing_caches:
            self._ids, self._caches = [], None

    def belongs_to(self, pair: LoadedPair) -> bool:
        """True if the caches are that pair's, or if closed: `rounds` then raises the error that says so."""
        return self._caches is None or self._caches.pair is pair

    @property
    def size_bytes(self) -> int:
        """Memory of the caches."""
        return sum(cache.size_bytes for cache in self._caches.all) if self._caches is not None else 0

    def rounds(
        self,
        prompt: Prompt,
        settings: Settings,
        cancelled: Callable[[], bool],
        make_room: Callable[[], None] = release_memory,
    ) -> Generator[Round, None, None]:
        """Yield the rounds of the answer to `prompt`; the last has the finish reason and the stats.

        Where memory runs out, `make_room` is called and the step run again. Raises PromptError, and LoadError
        once closed, before the first round; AnswerError where logits are not finite or memory runs out all
        the same. What was emitted is kept for the follow-up then, and where the generator is closed early;
        after an AnswerError the caches are freed.
        """
        require_settings(settings)
        pair = self._open_caches.pair
        emitted = 0
        try:
            for rnd in self._rounds(prompt, settings, cancelled, make_room):
                emitted += len(rnd.emitted)
                yield rnd
            return
        except Exception as error:
            failure = _failure(pair, error, emitted)
            if failure is None:
                raise
            self._discard_caches()
            release_memory(error)
        # Raised outside of the except clause: as its context, the first error would keep the caches.
        raise AnswerError(failure)

    @property
    def _open_caches(self) -> _Caches:
        if self._caches is None:
            raise LoadError("The pair of this conversation was unloaded. Begin a new conversation.")
        return self._caches

    def _discard_caches(self) -> None:
        """Free the caches after a failed step, with what it left in buffers that conversations share."""
        if self._caches is not None:
            self._caches.discard()
        self.reset()

    def _rounds(
        self,
        prompt: Prompt,
        settings: Settings,
        cancelled: Callable[[], bool],
        make_room: Callable[[], None],
    ) -> Generator[Round, None, None]:
        started = time.perf_counter()
        caches = self._open_caches
        pair = caches.pair
        context, dropped = self._encode(pair, prompt, settings)
        self.prompt_ids = prompt_ids = list(context)
        cached = self._reuse(caches, context)
        noise = KeyedNoise(settings.seed, pair.target.device)
        sampler = with_second_try(lambda: _prepare(caches, len(context), settings, noise), make_room)
        drafters = _drafters(caches, settings)
        ahead = steps_ahead(pair.target, caches.target, drafters, sampler, settings)
        text = pair.answer_text(prompt, context, settings)
        steps = Decoding(
            context,
            pair.target,
            caches.target,
            drafters,
            sampler,
            self._policy(pair, settings),
            text.feed,
            Limits(settings.max_new_tokens, pair.context_length),
            make_room,
        ).rounds(cancelled)
        self._ids = context
        rounds: list[Round] = []
        first_token_s = 0.0
        try:
            for step in steps:
                position = len(context) - step.kept - len(prompt_ids)
                rnd = build_round(step, position, text)
                if step.index == 0:
                    first_token_s = time.perf_counter() - started
                rounds.append(rnd)
                if rnd.finish_reason is not None:
                    stats = summarize(
                        rounds,
                        time_to_first_token_s=first_token_s,
                        prompt_tokens=len(prompt_ids),
                        cached_prompt_tokens=cached,
                        dropped_messages=dropped,
                        seed=noise.seed,
                        same_rows=pair.target.same_rows,
                        thought_tokens=text.thought_tokens,
                    )
                    rnd = replace(rnd, stats=stats)
                yield rnd
                if rnd.finish_reason is None:
                    ahead.prepare(len(context))
        finally:
            steps.close()
            if not text.stopped:
                answer = "".join(rnd.text for rnd in rounds)
                self._remember(emitted_ids(rounds), text.thought_tokens, answer, pair)

    def _policy(self, pair: LoadedPair, settings: Settings) -> GammaPolicy:
        """An adaptive policy continues with the counts of the conversation's earlier answers."""
        if settings.gamma != "auto":
            return FixedGamma(settings.gamma)
        sources = SOURCES[settings.drafting]
        for source in sources:
            if source not in self._adaptive:
                self._adaptive[source] = AdaptiveGamma(pair.costs[source])
        return BestOffer({source: self._adaptive[source] for source in sources})

    def _encode(self, pair: LoadedPair, prompt: Prompt, settings: Settings) -> tuple[list[int], int]:
        """The prompt's ids, and the number of oldest messages dropped to make it fit."""
        limit = pair.context_length
        if isinstance(prompt, str):
            ids, _ = pair.prompter.encode_within(prompt, limit)
            return ids, 0
        check_messages(prompt)
        # Room for an answer is made by dropping old turns, but a long last message may use it up.
        room = limit - min(settings.max_new_tokens, limit // 4)
        kept, *shorter = _without_oldest_turns(prompt)

        def encode(messages: Sequence[Message]) -> list[int]:
            return pair.prompter.encode(messages, self.sampled, settings.thinking)

        ids = encode(kept)
        if len(ids) > room and shorter:
            # The rendering of a long conversation takes many milliseconds, so not every one is tried.
            at = bisect_left(shorter[:-1], True, key=lambda some: len(encode(some)) <= room)
            kept = shorter[at]
            ids = encode(kept)
        if len(ids) >= limit:
            raise PromptError(
                f"The message has {len(ids)} tokens; this pair's context holds {limit}, the answer "
                "included. Shorten it and send again."
            )
        answers = {message["content"] for message in prompt if message["role"] == "assistant"}
        self.sampled = {text: sampled for text, sampled in self.sampled.items() if text in answers}
        return ids, len(prompt) - len(kept)

    def _reuse(self, caches: _Caches, context: Sequence[int]) -> int:
        """Rewind the caches to the longest prefix they share with `context`; return its length in the
        target's. The last token is always fed, since its logits are needed.
        """
        reusable = context[:-1]
        differs_at = first_difference(self._ids, reusable)
        shared = len(reusable) if differs_at is None else differs_at
        if not caches.pair.target.rewinds:
            shared = 0  # its state does not continue a prefill by a second one
        for cache in caches.all:
            cache.rewind(shared)
        return caches.target.length

    def _remember(self, ids: list[int], thought_tokens: int, text: str, pair: LoadedPair) -> None:
        """Store the ids that were sampled for a text, which follow those of a thought."""
        if ids and ids[-1] in pair.eos_ids:
            ids = ids[:-1]
        if thought_tokens:

            def decode(ids: list[int]) -> str:
                return str(pair.tokenizer.decode(ids, skip_special_tokens=True))

            ids = list(dropwhile(lambda token_id: not decode([token_id]).strip(), ids[thought_tokens:]))
            # A token may have white space in front, which the text leaves out.
            if decode(ids) != text:
                return
        if ids:
            self.sampled[text] = ids


def _drafters(caches: _Caches, settings: Settings) -> list[Drafter]:
    """The drafters of an answer, the preferred one first."""
    sources = SOURCES[settings.drafting] if settings.gamma != 0 else ()
    return [MODEL_FREE[source]() if source in MODEL_FREE else _model_drafter(caches) for source in sources]


def _model_drafter(caches: _Caches) -> ModelDrafter:
    runner = caches.pair.require_drafter()
    if caches.drafter is None:
        caches.drafter = runner.new_cache()
    return ModelDrafter(runner, caches.drafter)


def _prepare(caches: _Caches, prompt_length: int, settings: Settings, noise: KeyedNoise) -> Sampler:
    """Reserve room for the answer, so that nothing grows while it is decoded; a very long one grows. Return
    its sampler.
    """
    pair = caches.pair
    positions = prompt_length + min(settings.max_new_tokens, _RESERVED_AHEAD)
    caches.target.reserve(min(pair.context_length, positions))
    drafts = settings.gamma != 0 and "model" in SOURCES[settings.drafting]
    if pair.drafter is not None and caches.drafter is not None and drafts:
        caches.drafter.reserve(min(pair.drafter.context_length, positions))
    return sampler_for(settings, noise, pair.sampling, pair.eos_ids)


def _failure(pair: LoadedPair, error: Exception, emitted: int) -> str | None:
    """The message for the end of an answer after `emitted` tokens; None for an error of another kind."""
    if isinstance(error, NotFiniteError):
        return pair.not_finite(error.model)
    return pair.memory_ran_out(emitted) if out_of_memory(error) else None


def _without_oldest_turns(messages: Sequence[Message]) -> list[Sequence[Message]]:
    """The conversation, then from its second user message on with its system message, from its third, ..."""
    head = [*messages[:1]] if messages[0]["role"] == "system" else []
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    return [messages, *([*head, *messages[at:]] for at in users[1:])]
