"""llama.cpp on the GGUF file of a pair's target, by the package xllamacpp: plain decoding of the same model.

Its server runs in this process. It gets the ids of our prompt, so the file must be of the target.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import torch

from .errors import SettingsError, SpecDecError, quote
from .fair_lock import FairLock
from .pair import LoadedPair
from .rounds import last_plain_round, plain_round
from .sampling.filters import SamplingParams
from .settings import Settings
from .text.prompting import Prompt
from .trace import FinishReason, Round

MOST_CONTEXT = 4096
"""Positions that its cache has room for."""
_SILENT = -1
"""llama.cpp's verbosity for errors alone."""
_TIMEOUT_S = 600.0
"""Longest wait for a token, the prompt's time included."""
_SAMPLERS = ["temperature", "top_k", "top_p", "min_p", "typ_p"]
"""Its samplers after the penalties, in our order."""
_FILTERS = {"logit_bias", "banned_tokens", "repetition_penalty", "frequency_penalty", "presence_penalty"}
_FILTERS |= {"top_k", "top_p", "min_p", "typical_p"}
"""Settings of filters that a request has."""
_POLL_S = 0.1
_STOP_S = 10.0
"""Longest wait for the end of another engine's answer."""

_one_at_a_time = threading.Lock()
_running: LlamaCpp | None = None


def package() -> Any:
    """Return the package xllamacpp. Raises SettingsError if it is not installed."""
    try:
        import xllamacpp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SettingsError(
            f"llama.cpp needs the package xllamacpp ({error}). Install it: pip install xllamacpp"
        ) from error
    return xllamacpp


@dataclass(frozen=True, slots=True)
class _Chunk:
    """New ids of an answer. `ended` is True at its end if the model ended it, not a limit."""

    ids: list[int]
    ended: bool = False


@dataclass(frozen=True, slots=True)
class _Load:
    """A file as a server has it loaded: with room for that many positions, on the pair's threads."""

    path: str
    context_length: int
    threads: int

    @classmethod
    def of(cls, path: str, pair: LoadedPair) -> _Load:
        """Return the load of a GGUF file for comparison with a pair."""
        threads = pair.target.threads or torch.get_num_threads()
        return cls(path, min(MOST_CONTEXT, pair.context_length), threads)


class LlamaCpp:
    """llama.cpp with a GGUF loaded.

    Raises SettingsError if the file cannot be loaded, the pair is not on a CPU, or the package is missing.
    """

    def __init__(self, path: str, pair: LoadedPair) -> None:
        xllamacpp = package()
        if pair.target.device.type != "cpu":
            raise SettingsError("llama.cpp is compared with pairs on a CPU, and this one is on a GPU.")
        params: Any = xllamacpp.CommonParams()
        self.load = load = _Load.of(path, pair)
        params.model.path = path
        params.n_ctx = load.context_length
        params.n_parallel = 1
        params.verbosity = _SILENT
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = load.threads
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:
            raise SettingsError(f"llama.cpp cannot load {path}: {quote(error)}") from error

    def complete(self, prompt_ids: Sequence[int], settings: Settings) -> dict[str, Any]:
        """Return llama.cpp's answer with its timings, when it is whole. Raises SettingsError for another."""
        done = self._server.handle_completions(_request(prompt_ids, settings))
        if "timings" not in done:
            raise SettingsError(f"llama.cpp does not answer: {str(done)[:300]}")
        return done

    def stream(
        self,
        prompt_ids: Sequence[int],
        settings: Settings,
        encode: Callable[[str], list[int]],
        cancelled: Callable[[], bool],
    ) -> Generator[_Chunk, None, None]:
        """Yield new ids as they come, until the end or until it is `cancelled`. Closing it ends the answer.

        `encode` gives the ids of a text. Raises SpecDecError if llama.cpp fails.
        """
        address = urlsplit(self._server.listening_address)
        request = _request(prompt_ids, settings) | {"stream": True, "return_tokens": True}
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        with closing(connection):
            try:
                connection.connect()
                with _ended_if(cancelled, connection.sock):
                    # The package's own handler of streams gives texts without their ids.
                    connection.request(
                        "POST", "/completion", json.dumps(request), {"Content-Type": "application/json"}
                    )
                    yield from _chunks(connection.getresponse(), encode)
            except (OSError, http.client.HTTPException, ValueError, SpecDecError) as error:
                if cancelled():
                    return
                if isinstance(error, SpecDecError):
                    raise
                raise SpecDecError(f"llama.cpp does not answer: {quote(error)}") from error


@contextmanager
def _ended_if(cancelled: Callable[[], bool], connection: socket.socket) -> Iterator[None]:
    """Within it the connection's reads end once `cancelled` returns True, also while a prompt is read."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            if cancelled():
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@contextmanager
def running_server(pair: LoadedPair) -> Iterator[LlamaCpp]:
    """Within it the process's one server has the pair's GGUF file loaded; others wait. Raises SettingsError
    if there is no such file, and as LlamaCpp does.

    A server beside another may not end when it is to, so one for another file takes its place.
    """
    global _running
    if pair.gguf is None:
        raise SettingsError("llama.cpp needs the target as a GGUF file, the only one in its folder.")
    with _one_at_a_time:
        if _running is None or _running.load != _Load.of(pair.gguf, pair):
            _running = None  # which ends it
            _running = LlamaCpp(pair.gguf, pair)
        yield _running


def stop_server(path: str) -> None:
    """End the process's server if it has this file loaded and no answer in progress."""
    global _running
    if _one_at_a_time.acquire(timeout=_STOP_S):
        try:
            if _running is not None and _running.load.path == path:
                _running = None
        finally:
            _one_at_a_time.release()


def _request(prompt_ids: Sequence[int], settings: Settings) -> dict[str, Any]:
    """A request for an answer with the settings that llama.cpp has too; its filters come in our order. Its
    frequency and presence penalties count the prompt as well. Raises SettingsError for a filter it lacks.
    """
    params = SamplingParams.from_settings(settings)
    if unknown := [name for name in params.values if name not in _FILTERS]:
        raise SettingsError(f"llama.cpp's lane has no {unknown[0]}.")
    greedy = params.greedy
    biases = {**settings.logit_bias, **dict.fromkeys(settings.banned_tokens, False)}
    return {
        "prompt": list(prompt_ids),
        "n_predict": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_k": 1 if greedy else settings.top_k,
        "top_p": settings.top_p,
        "min_p": settings.min_p,
        "typical_p": settings.typical_p,
        "repeat_penalty": settings.repetition_penalty,
        "repeat_last_n": len(prompt_ids) + settings.max_new_tokens,
        "frequency_penalty": settings.frequency_penalty,
        "presence_penalty": settings.presence_penalty,
        "logit_bias": [list(bias) for bias in biases.items()],
        "samplers": ["penalties", *(["top_k"] if greedy else _SAMPLERS)],
        "seed": settings.seed,
        "cache_prompt": False,
    }


def _chunks(response: http.client.HTTPResponse, encode: Callable[[str], list[int]]) -> Iterator[_Chunk]:
    """The events of a streamed answer. Raises SpecDecError for an error in place of one."""
    if response.status != http.client.OK:
        raise SpecDecError(f"llama.cpp does not answer: {response.read(300).decode(errors='replace')}")
    known = 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "tokens" not in event:
            raise SpecDecError(f"llama.cpp does not answer: {str(event)[:300]}")
        ids, count = event["tokens"], event.get("tokens_predicted", 0) - known
        if ids:
            # Tokens that ended within a character had no event; this one has their text, but not their ids.
            yield _Chunk(ids if count <= len(ids) else encode(event["content"]) or ids)
            known += count
        if event.get("stop"):
            yield _Chunk([], event.get("stop_type") == "eos")
            return
    raise SpecDecError("llama.cpp does not answer: its stream ended early.")


def llama_cpp_rounds(
    pair: LoadedPair,
    prompt: Prompt,
    settings: Settings,
    turn: FairLock,
    cancelled: Callable[[], bool],
) -> Generator[Round, None, None]:
    """Yield llama.cpp's answer from the pair's GGUF file as it comes, a round a token; the first, with the
    prefill, has index 0. The file is loaded the first time.

    Holds `turn` from beginning to end, so that no other answer takes the cores. Raises SettingsError,
    PromptError, and SpecDecError if llama.cpp fails.
    """
    rounds: list[Round] = []
    with turn, running_server(pair) as server:
        prompt_ids, room = pair.prompter.encode_within(prompt, server.load.context_length, settings.thinking)
        finish: FinishReason = "length" if settings.max_new_tokens <= room else "context"
        settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
        text = pair.answer_text(prompt, prompt_ids, settings)
        position = 0

        def encode(part: str) -> list[int]:
            return pair.tokenizer.encode(part, add_special_tokens=False)

        before = time.perf_counter()
        with closing(server.stream(prompt_ids, settings, encode, cancelled)) as chunks:
            for chunk in chunks:
                if chunk.ended:
                    finish = "eos"
                if not chunk.ids:
                    continue
                kept, reason = text.feed(chunk.ids)
                now = time.perf_counter()
                ids = chunk.ids[:kept]
                rounds.append(plain_round("llama.cpp", len(rounds), position, ids, now - before, text))
                position += kept
                before = now
                yield rounds[-1]
                if reason is not None:
                    finish = reason
                    break
        if finish in ("length", "context") and cancelled():
            finish = "cancelled"
    yield last_plain_round("llama.cpp", rounds, position, text, finish, len(prompt_ids), settings)
