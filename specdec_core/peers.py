"""transformers' own generate on a loaded pair, alone and with the drafter as its assistant, to compare with.

Its steps come out as rounds of plain tokens, for it does not say which of them were drafts.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from transformers.generation.streamers import BaseStreamer

from .errors import PromptError, SettingsError, SpecDecError
from .fair_lock import FairLock
from .metrics import summarize
from .pair import LoadedPair
from .runners.few_rows import stock_layers
from .settings import Settings
from .text.detokenization import AnswerText
from .text.prompting import Prompt
from .trace import Round, Token

_LOOKED_AT_EVERY_S = 0.1
"""Seldom, since whoever looks takes Python's lock away from what is being measured."""


def peer_ids(
    pair: LoadedPair,
    prompt_ids: Sequence[int],
    settings: Settings,
    assisted: bool,
    streamer: BaseStreamer | None = None,
) -> list[int]:
    """What transformers' own generate answers, with the drafter as its assistant where `assisted`."""
    extra = {}
    if assisted:
        assistant = pair.drafter.model
        own = assistant.generation_config
        auto = settings.gamma == "auto"
        # The same gamma in every round, as in the lane that it is compared with; for "auto" its own defaults.
        own.num_assistant_tokens = 20 if auto else settings.gamma
        own.num_assistant_tokens_schedule = "constant"
        own.assistant_confidence_threshold = 0.4 if auto else 0.0
        extra["assistant_model"] = assistant
    if settings.temperature > 0:
        extra |= {
            "do_sample": True,
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
        }
        if settings.min_p > 0:
            extra["min_p"] = settings.min_p
    else:
        extra["do_sample"] = False
    ids = torch.tensor([list(prompt_ids)], device=pair.target.device)
    with stock_models(pair):
        output = pair.target.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=min(pair.eos_ids, default=0),
            repetition_penalty=1.0,
            streamer=streamer,
            **extra,
        )
    return output[0, ids.shape[1] :].tolist()


def peer_rounds(
    pair: LoadedPair,
    prompt: Prompt,
    settings: Settings,
    assisted: bool,
    turn: FairLock,
    cancelled: Callable[[], bool],
) -> Iterator[Round]:
    """The same as it comes, a round a step; the first, which reads the prompt, has index 0.

    It has `turn` from beginning to end, since its models are as transformers made them meanwhile. Raises
    SettingsError, PromptError, and SpecDecError where transformers cannot do it.
    """
    if assisted and pair.drafter is None:
        raise SettingsError("transformers' assisted generation needs a drafter, and none is loaded.")
    prompt_ids = pair.prompter.encode(prompt)
    room = pair.context_length - len(prompt_ids)
    if room < 1:
        raise PromptError(
            f"The prompt has {len(prompt_ids)} tokens; the context holds {pair.context_length}, the answer "
            "included."
        )
    finish = "length" if settings.max_new_tokens <= room else "context"
    settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
    text = AnswerText(pair.tokenizer, prompt_ids, pair.eos_ids, settings.stop)
    rounds: list[Round] = []
    position, ended = 0, False
    steps = _Steps()
    thread = threading.Thread(target=_generate, args=(pair, prompt_ids, settings, assisted, turn, steps))
    thread.start()
    try:
        for ids, seconds in steps.read(cancelled):
            kept, reason = text.feed(ids)
            tokens = [
                Token(token_id, piece, "plain")
                for token_id, piece in zip(ids[:kept], text.pieces, strict=True)
            ]
            rounds.append(
                Round(len(rounds), position, 0, "transformers", tokens, text.take(), 0.0, seconds, 0.0)
            )
            position += kept
            yield rounds[-1]
            if reason is not None:
                finish, ended = reason, True
                break
    finally:
        steps.cancelled.set()
        thread.join()
    if steps.error is not None:
        said = str(steps.error).split("\n")[0]
        raise SpecDecError(f"transformers cannot do this: {type(steps.error).__name__}: {said}")
    if not ended and cancelled():
        finish = "cancelled"
    stats = summarize(
        rounds,
        time_to_first_token_s=rounds[0].seconds if rounds else 0.0,
        prompt_tokens=len(prompt_ids),
        seed=settings.seed,
    )
    yield Round(
        len(rounds),
        position,
        0,
        "transformers",
        [],
        text.take(final=True),
        0.0,
        0.0,
        0.0,
        finish,
        stats,
    )


@contextmanager
def stock_models(pair: LoadedPair) -> Iterator[None]:
    """Within it the models are as transformers made them: its own layers and its own attention."""
    models = [runner.model for runner in (pair.target, pair.drafter) if runner is not None]
    ours = [(model, model.config._attn_implementation) for model in models]
    with stock_layers(*models):
        try:
            for model, attention in ours:
                if attention not in ("sdpa", "eager"):
                    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
                    model.set_attn_implementation("eager" if capped else "sdpa")
            yield
        finally:
            for model, attention in ours:
                if model.config._attn_implementation != attention:
                    model.set_attn_implementation(attention)


class _Cancelled(Exception):
    """Ends generate from within its streamer."""


class _Steps(BaseStreamer):
    """The ids of each step of generate with its seconds, from the thread that makes them to another."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.error: Exception | None = None
        self._done = threading.Event()
        self._ready: queue.SimpleQueue[tuple[list[int], float]] = queue.SimpleQueue()
        self._prompt_seen = False
        self._before = 0.0

    def begin(self) -> None:
        self._before = time.perf_counter()

    def put(self, value: torch.Tensor) -> None:
        if self.cancelled.is_set():
            raise _Cancelled
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        ids = value.reshape(-1).tolist()
        now = time.perf_counter()
        if ids:
            self._ready.put((ids, now - self._before))
            self._before = now

    def end(self) -> None:
        """Nothing is held back."""

    def finish(self) -> None:
        self._done.set()

    def read(self, cancelled: Callable[[], bool]) -> Iterator[tuple[list[int], float]]:
        """Steps as they come, until the last one or until `cancelled` says so."""
        while True:
            done = self._done.wait(_LOOKED_AT_EVERY_S)
            while not self._ready.empty():
                yield self._ready.get()
            if done:
                return
            if cancelled():
                self.cancelled.set()


def _generate(
    pair: LoadedPair,
    prompt_ids: list[int],
    settings: Settings,
    assisted: bool,
    turn: FairLock,
    steps: _Steps,
) -> None:
    try:
        with turn:
            if settings.seed is not None:
                torch.manual_seed(settings.seed)
            steps.begin()
            if not steps.cancelled.is_set():
                peer_ids(pair, prompt_ids, settings, assisted, steps)
    except _Cancelled:
        pass
    except Exception as error:
        # Whatever a model does not support there: the caller says it.
        steps.error = error
    finally:
        steps.finish()
