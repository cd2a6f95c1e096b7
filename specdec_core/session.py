"""One conversation: its caches, the ids they hold, and what was sampled for earlier answers.

Knows the runners and the tokenizer it was given; nothing of presets, locks or other sessions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from .decoding import DecodedRound, Decoding, GammaPolicy, Limits
from .drafting import Drafter, ModelDrafter, NgramDrafter
from .drafting.length import AdaptiveGamma, FixedGamma
from .errors import LoadError, PromptError
from .metrics import summarize
from .pair import LoadedPair
from .sampling import sampler_for
from .sampling.noise import KeyedNoise
from .settings import Drafting, Settings
from .text.detokenization import AnswerText
from .text.prompting import Message, Prompt, check_messages
from .trace import Round, Token, emitted_ids, first_difference

_RESERVED_AHEAD = 1024


class Session:
    """Holds the KV caches of one conversation over weights that are shared."""

    def __init__(self, pair: LoadedPair, sampled: Mapping[str, Sequence[int]] | None = None) -> None:
        self._pair = pair
        self.prompt_ids: list[int] = []
        self.sampled: dict[str, list[int]] = {text: list(ids) for text, ids in (sampled or {}).items()}
        """The ids of each answer of the conversation, by its text: what a follow-up prompt is made of."""
        self._adaptive: dict[Drafting, AdaptiveGamma] = {}
        self.reset()

    def reset(self) -> None:
        """Gives up the caches; the next answer prefills anew."""
        self._ids: list[int] = []
        self._cache = self._pair.target.new_cache()
        self._draft_cache = self._pair.drafter.new_cache() if self._pair.drafter else None

    def close(self) -> None:
        """Lets go of caches and weights; the session cannot be used again."""
        self._ids, self._cache, self._draft_cache, self._pair = [], None, None, None

    def belongs_to(self, pair: LoadedPair) -> bool:
        """Whether it holds that pair's caches; a closed one is nobody's, and says so when it is asked."""
        return self._pair is pair or self._pair is None

    @property
    def size_bytes(self) -> int:
        """Memory that the caches hold."""
        return sum(cache.size_bytes for cache in (self._cache, self._draft_cache) if cache is not None)

    def rounds(self, prompt: Prompt, settings: Settings, cancelled: Callable[[], bool]) -> Iterator[Round]:
        """Answers `prompt` round by round; the last has the finish reason and the stats.

        Raises PromptError before the first round. Closing the iterator early keeps what was emitted.
        """
        started = time.perf_counter()
        pair = self._pair
        if pair is None:
            raise LoadError("The pair of this conversation was unloaded. Begin a new conversation.")
        context, dropped = self._encode(prompt, settings)
        self.prompt_ids = prompt_ids = list(context)
        cached = self._reuse(context)
        self._reserve(len(context), settings)
        noise = KeyedNoise(settings.seed, pair.target.device)
        text = AnswerText(pair.tokenizer, context, pair.eos_ids, settings.stop)
        drafter = self._drafter(settings)
        steps = Decoding(
            context,
            pair.target,
            self._cache,
            drafter,
            sampler_for(settings, noise, pair.sampling),
            self._policy(settings),
            text.feed,
            Limits(settings.max_new_tokens, pair.context_length),
        ).rounds(cancelled)
        self._ids = context
        rounds: list[Round] = []
        first_token_s = 0.0
        try:
            for step in steps:
                built = time.perf_counter()
                position = len(context) - step.kept - len(prompt_ids)
                rnd = _build_round(step, position, text)
                if step.index == 0:
                    first_token_s = time.perf_counter() - started
                rnd = replace(rnd, overhead_s=rnd.overhead_s + time.perf_counter() - built)
                rounds.append(rnd)
                if rnd.finish_reason is not None:
                    stats = summarize(
                        rounds,
                        time_to_first_token_s=first_token_s,
                        prompt_tokens=len(prompt_ids),
                        cached_prompt_tokens=cached,
                        dropped_messages=dropped,
                        seed=noise.seed,
                    )
                    rnd = replace(rnd, stats=stats)
                yield rnd
        finally:
            steps.close()
            if not text.stopped:
                self._remember(emitted_ids(rounds), "".join(rnd.text for rnd in rounds), pair.eos_ids)

    def _drafter(self, settings: Settings) -> Drafter | None:
        if settings.gamma == 0:
            return None
        if settings.drafting == "ngram":
            return NgramDrafter()
        return ModelDrafter(self._pair.drafter, self._draft_cache)

    def _policy(self, settings: Settings) -> GammaPolicy:
        """An adaptive policy goes on with what earlier answers of the conversation taught it."""
        if settings.gamma != "auto":
            return FixedGamma(settings.gamma)
        if settings.drafting not in self._adaptive:
            self._adaptive[settings.drafting] = AdaptiveGamma(self._pair.costs[settings.drafting])
        return self._adaptive[settings.drafting]

    def _encode(self, prompt: Prompt, settings: Settings) -> tuple[list[int], int]:
        """The prompt's ids, and how many of the oldest messages were dropped to make it fit."""
        limit = self._pair.context_length
        if isinstance(prompt, str):
            ids = self._pair.prompter.encode_raw(prompt)
            if len(ids) >= limit:
                raise PromptError(
                    f"The prompt has {len(ids)} tokens; the context holds {limit}, the answer included."
                )
            return ids, 0
        check_messages(prompt)
        # Room for an answer is made by dropping old turns, but a long last message may use it up.
        room = limit - min(settings.max_new_tokens, limit // 4)
        kept = list(prompt)
        while True:
            ids = self._pair.prompter.encode_chat(kept, self.sampled)
            if len(ids) <= room:
                break
            shorter = _without_oldest_turn(kept)
            if shorter is None:
                break
            kept = shorter
        if len(ids) >= limit:
            raise PromptError(
                f"The message has {len(ids)} tokens; this pair's context holds {limit}, the answer "
                "included. Shorten it and send again."
            )
        answers = {message["content"] for message in prompt if message["role"] == "assistant"}
        self.sampled = {text: sampled for text, sampled in self.sampled.items() if text in answers}
        return ids, len(prompt) - len(kept)

    def _reuse(self, context: Sequence[int]) -> int:
        """Rewinds the caches to the longest prefix they share with `context`; how much of it the target
        need not see again. At least the last token is fed, since its logits are needed.
        """
        reusable = context[:-1]
        differs_at = first_difference(self._ids, reusable)
        shared = len(reusable) if differs_at is None else differs_at
        self._cache.rewind(shared)
        if self._draft_cache is not None:
            self._draft_cache.rewind(shared)
        return self._cache.length

    def _reserve(self, prompt_length: int, settings: Settings) -> None:
        """Room for the answer at once, so that nothing grows while it is decoded; a very long one grows."""
        ahead = min(settings.max_new_tokens, _RESERVED_AHEAD)
        room = min(self._pair.context_length, prompt_length + ahead)
        self._cache.reserve(room)
        if self._draft_cache is not None and settings.gamma != 0 and settings.drafting == "model":
            self._draft_cache.reserve(room)

    def _remember(self, ids: list[int], text: str, eos_ids: frozenset[int]) -> None:
        """Keeps the ids that were sampled for a text."""
        if ids and ids[-1] in eos_ids:
            ids = ids[:-1]
        if ids:
            self.sampled[text] = ids


def _build_round(step: DecodedRound, position: int, text: AnswerText) -> Round:
    """A round's ids, as tokens with text and the probabilities that decided."""
    tokens: list[Token] = []
    verdict = step.verdict
    if verdict is not None:
        stood = verdict.accepted
        pieces = [*text.pieces[:stood], *text.dropped(stood, verdict.drafts[stood:])]
        for at, token_id in enumerate(verdict.drafts):
            kind = "accepted" if at < stood else "rejected" if at == stood else "untested"
            piece = pieces[at]
            tokens.append(Token(token_id, piece, kind, verdict.target_probs[at], verdict.drafter_probs[at]))
        if step.kept > stood:
            kind = "plain" if not verdict.drafts else "correction" if stood < len(verdict.drafts) else "bonus"
            tokens.append(
                Token(
                    verdict.token,
                    text.pieces[stood],
                    kind,
                    verdict.token_target_prob,
                    verdict.token_drafter_prob,
                )
            )
    return Round(
        index=step.index,
        position=position,
        gamma=step.gamma,
        gamma_reason=step.gamma_reason,
        tokens=tokens,
        text=text.take(final=step.finish_reason is not None),
        draft_s=step.draft_s,
        verify_s=step.verify_s,
        overhead_s=max(0.0, step.total_s - step.draft_s - step.verify_s),
        finish_reason=step.finish_reason,
    )


def _without_oldest_turn(messages: list[Message]) -> list[Message] | None:
    """The conversation from the next user message on, a system message kept; None where only one is left."""
    head = messages[:1] if messages[0]["role"] == "system" else []
    rest = messages[len(head) :]
    users = [at for at, message in enumerate(rest) if message["role"] == "user"]
    return head + rest[users[1] :] if len(users) > 1 else None
