"""transformers' own generate on a loaded pair, alone and with the drafter as its assistant, for comparison.

Its steps become rounds of plain tokens, since it does not report which of them were drafts.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from .errors import AnswerError, SettingsError, SpecDecError, quote
from .fair_lock import FairLock
from .out_of_memory import out_of_memory, release_memory, with_second_try
from .pair import LoadedPair
from .rounds import last_plain_round, plain_round
from .runners import Runner
from .runners.few_rows import stock_layers
from .runners.serving import attention_for
from .runners.short_head import whole_heads
from .sampling.filters import Penalty, SamplingParams, adjusted
from .sampling.history import Tally
from .settings import Settings
from .text.prompting import Prompt
from .trace import FinishReason, Round

_POLL_S = 0.1
"""Poll rarely: each poll takes the GIL from the code being timed."""


def peer_ids(
    pair: LoadedPair,
    prompt_ids: Sequence[int],
    settings: Settings,
    assisted: bool,
    streamer: BaseStreamer | None = None,
) -> list[int]:
    """Answer with transformers' own generate, `assisted` by the drafter or alone. Returns the new ids.

    Raises SettingsError if `assisted` and there is no drafter.
    """
    extra: dict[str, Any] = {}
    if assisted:
        extra["assistant_model"] = _require_drafter(pair).model
    ids = torch.tensor([list(prompt_ids)], device=pair.target.device)
    with stock_models(pair), _without_defaults(pair, settings):
        target: Any = pair.target.model
        output = target.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=settings.max_new_tokens,
            eos_token_id=sorted(pair.eos_ids) or [-1],  # else a default of the model's class
            pad_token_id=min(pair.eos_ids, default=0),
            streamer=streamer,
            **_sampling_arguments(settings, len(prompt_ids)),
            **extra,
        )
    return output[0, ids.shape[1] :].tolist()


def _sampling_arguments(settings: Settings, prompt_length: int) -> dict[str, Any]:
    """Arguments of generate for the settings that shape a distribution. Raises SettingsError for a cut that
    it does not have.
    """
    params = SamplingParams.from_settings(settings)
    arguments: dict[str, Any] = {"do_sample": not params.greedy}
    if not params.greedy:
        # Without these, generate takes values of its own.
        arguments |= {"temperature": params.temperature, "top_k": 0, "top_p": 1.0}
    for cut in params.cuts:
        if cut.transformers is None:
            raise SettingsError(f"transformers' generate has no {cut.setting}.")
        arguments[cut.transformers] = params.value(cut.setting)
    names = [each.transformers if isinstance(each, Penalty) else None for each in params.on_logits]
    if None in names:
        # All together, since generate's own would come before the others.
        arguments["logits_processor"] = LogitsProcessorList([_OnLogits(params, prompt_length)])
    else:
        arguments |= {
            str(name): params.value(each.setting) for name, each in zip(names, params.on_logits, strict=True)
        }
    return arguments


class _OnLogits(LogitsProcessor):
    """Our biases and penalties, for those that transformers does not have."""

    def __init__(self, params: SamplingParams, prompt_length: int) -> None:
        self._params = params
        self._prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the logits [1, vocab] that follow input_ids [1, length]."""
        tally = Tally(scores.shape[-1], scores.device)
        ids = input_ids[0].tolist()
        tally.update(ids[: self._prompt_length])
        tally.update(ids)
        return adjusted(scores, self._params, tally.history)


def require_modules(pair: LoadedPair) -> None:
    """Raise SettingsError if transformers' modules have given their weights up."""
    if not all(runner.keeps_modules for runner in pair.runners):
        raise SettingsError(
            "transformers cannot compute with weights that are quantized for this CPU. Load the pair with "
            "quantization none to compare."
        )


def _require_drafter(pair: LoadedPair) -> Runner:
    if pair.drafter is None:
        raise SettingsError("transformers' assisted generation needs a drafter, and none is loaded.")
    return pair.drafter


def peer_rounds(
    pair: LoadedPair,
    prompt: Prompt,
    settings: Settings,
    assisted: bool,
    turn: FairLock,
    cancelled: Callable[[], bool],
    make_room: Callable[[], None] = release_memory,
) -> Generator[Round, None, None]:
    """Yield the answer of `peer_ids` as it comes, a round a step; the first, the prefill, has index 0.

    Holds `turn` from beginning to end, since the models have transformers' own layers meanwhile. If memory
    runs out before the first step, `make_room` is called and generate runs again. Raises SettingsError,
    PromptError, AnswerError if memory runs out, and SpecDecError if transformers does not support the model
    or settings.
    """
    require_modules(pair)
    if assisted:
        _require_drafter(pair)
    # transformers' generate does not go on without its assistant past the end of the assistant's context.
    context_length = pair.shared_context_length if assisted else pair.context_length
    prompt_ids, room = pair.prompter.encode_within(prompt, context_length, settings.thinking)
    finish: FinishReason = "length" if settings.max_new_tokens <= room else "context"
    settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
    text = pair.answer_text(prompt, prompt_ids, settings)
    rounds: list[Round] = []
    position, ended = 0, False
    steps = _Steps()
    thread = threading.Thread(
        target=_generate, args=(pair, prompt_ids, settings, assisted, turn, steps, make_room)
    )
    thread.start()
    try:
        for ids, seconds in steps.read(cancelled):
            kept, reason = text.feed(ids)
            rounds.append(plain_round("transformers", len(rounds), position, ids[:kept], seconds, text))
            position += kept
            yield rounds[-1]
            if reason is not None:
                finish, ended = reason, True
                break
    finally:
        steps.cancelled.set()
        thread.join()
    if steps.error is not None:
        raise steps.error
    if not ended and cancelled():
        finish = "cancelled"
    yield last_plain_round("transformers", rounds, position, text, finish, len(prompt_ids), settings)


@contextmanager
def stock_models(pair: LoadedPair) -> Iterator[None]:
    """Within it the models have the layers, output layers among them, and the attention function that
    transformers gave them. Raises SettingsError if they have given their weights up.
    """
    require_modules(pair)
    models = [runner.model for runner in pair.runners]
    ours = [(model, model.config._attn_implementation or "sdpa") for model in models]
    with stock_layers(*models), whole_heads(*models):
        try:
            for model, attention in ours:
                if attention not in ("sdpa", "eager"):
                    model.set_attn_implementation(attention_for(model.config))
            yield
        finally:
            for model, attention in ours:
                if model.config._attn_implementation != attention:
                    model.set_attn_implementation(attention)


@contextmanager
def _without_defaults(pair: LoadedPair, settings: Settings) -> Iterator[None]:
    """Within it the models have no generation defaults of their own, and draft as the settings say: the same
    gamma in every round, as in the lane that it is compared with; for "auto" transformers' own choice.
    """
    auto = settings.gamma == "auto"
    models: list[Any] = [runner.model for runner in pair.runners]
    own = [model.generation_config for model in models]
    try:
        for model in models:
            model.generation_config = GenerationConfig(
                num_assistant_tokens=20 if auto else settings.gamma,
                num_assistant_tokens_schedule="constant",
                assistant_confidence_threshold=0.4 if auto else 0.0,
            )
        yield
    finally:
        for model, config in zip(models, own, strict=True):
            model.generation_config = config


class _Cancelled(Exception):
    """Raised in the streamer to end generate."""


class _Steps(BaseStreamer):
    """A queue of (ids, seconds) of each step of generate, from its thread to the reader's. `error` is what
    ended generate, in words.
    """

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.error: SpecDecError | None = None
        self._done = threading.Event()
        self._ready: queue.SimpleQueue[tuple[list[int], float]] = queue.SimpleQueue()
        self._prompt_seen = False
        self._before = 0.0
        self.started = False
        """True once there is a step."""

    def begin(self) -> None:
        """Expect a prompt, and start the clock of the first step."""
        self._prompt_seen = False
        self._before = time.perf_counter()

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt's ids, then each step's [1 or more]. Raises _Cancelled to end generate."""
        if self.cancelled.is_set():
            raise _Cancelled
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        ids = value.reshape(-1).tolist()
        now = time.perf_counter()
        if ids:
            self.started = True
            self._ready.put((ids, now - self._before))
            self._before = now

    def end(self) -> None:
        """Do nothing: every step was put at once."""

    def finish(self) -> None:
        """Tell the reader that no step follows."""
        self._done.set()

    def read(self, cancelled: Callable[[], bool]) -> Iterator[tuple[list[int], float]]:
        """Yield steps as they come; once `cancelled` returns True, generate is told to end."""
        while True:
            done = self._done.wait(_POLL_S)
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
    make_room: Callable[[], None],
) -> None:
    def answer() -> None:
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        steps.begin()
        if not steps.cancelled.is_set():
            peer_ids(pair, prompt_ids, settings, assisted, steps)

    def make_room_before_the_first_step() -> None:
        if steps.started:
            raise MemoryError
        make_room()

    try:
        with turn:
            with_second_try(answer, make_room_before_the_first_step)
    except _Cancelled:
        pass
    except Exception as error:
        # Anything that the model does not support in generate; the reader raises it.
        if out_of_memory(error):
            steps.error = AnswerError(pair.memory_ran_out())
            release_memory(error)
        else:
            steps.error = SpecDecError(f"transformers cannot do this: {quote(error)}")
    finally:
        steps.finish()
