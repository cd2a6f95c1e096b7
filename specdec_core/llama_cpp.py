"""llama.cpp on the GGUF file of a pair's target, by the package xllamacpp: plain decoding of the same model.

Its server runs in this process. It gets the ids of our prompt, so the file must be of the target.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import torch

from .errors import SettingsError, SpecDecError, quote
from .fair_lock import FairLock
from .metrics import summarize
from .pair import LoadedPair
from .peers import plain_round, prompt_ids_with_room
from .settings import Settings
from .text.detokenization import AnswerText
from .text.prompting import Prompt
from .trace import FinishReason, Round

MOST_CONTEXT = 4096
"""Positions that its cache has room for."""
_SILENT = -1
"""llama.cpp's verbosity for errors alone."""
_TIMEOUT_S = 600.0
"""Longest wait for a token, the prompt's time included."""


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
    """New ids of an answer; the last one has the reason of its end, "eos" or "limit", and no ids."""

    ids: list[int]
    end: str | None = None


class LlamaCpp:
    """llama.cpp with a GGUF loaded, on as many threads as the pair has.

    Raises SettingsError if the file cannot be loaded, the pair is not on a CPU, or the package is missing.
    """

    def __init__(self, path: str, pair: LoadedPair) -> None:
        xllamacpp = package()
        if pair.target.device.type != "cpu":
            raise SettingsError("llama.cpp is compared with pairs on a CPU, and this one is on a GPU.")
        params: Any = xllamacpp.CommonParams()
        params.model.path = path
        self.context_length = params.n_ctx = min(MOST_CONTEXT, pair.context_length)
        params.n_parallel = 1
        params.verbosity = _SILENT
        threads = pair.target.threads or torch.get_num_threads()
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
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

    def stream(self, prompt_ids: Sequence[int], settings: Settings) -> Generator[_Chunk, None, None]:
        """Yield new ids as they come. Closing it ends the answer. Raises SpecDecError if llama.cpp fails."""
        address = urlsplit(self._server.listening_address)
        request = _request(prompt_ids, settings) | {"stream": True, "return_tokens": True}
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_TIMEOUT_S)
        # The handler of OpenAI's format in the package itself gives texts without their ids.
        with closing(connection):
            try:
                connection.request(
                    "POST", "/completion", json.dumps(request), {"Content-Type": "application/json"}
                )
                yield from _chunks(connection.getresponse())
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise SpecDecError(f"llama.cpp does not answer: {quote(error)}") from error


def _request(prompt_ids: Sequence[int], settings: Settings) -> dict[str, Any]:
    """A request for an answer with the settings that llama.cpp has too; its filters come in our order."""
    greedy = settings.temperature == 0
    return {
        "prompt": list(prompt_ids),
        "n_predict": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_k": 1 if greedy else settings.top_k,
        "top_p": settings.top_p,
        "min_p": settings.min_p,
        "samplers": ["top_k"] if greedy else ["temperature", "top_k", "top_p", "min_p"],
        "seed": settings.seed,
        "cache_prompt": False,
    }


def _chunks(response: http.client.HTTPResponse) -> Iterator[_Chunk]:
    """The events of a streamed answer. Raises SpecDecError for an error in place of one."""
    if response.status != http.client.OK:
        raise SpecDecError(f"llama.cpp does not answer: {response.read(300).decode(errors='replace')}")
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[len(b"data: ") :])
        if "tokens" not in event:
            raise SpecDecError(f"llama.cpp does not answer: {str(event)[:300]}")
        if event["tokens"]:
            yield _Chunk(event["tokens"])
        if event.get("stop"):
            yield _Chunk([], event.get("stop_type", "limit"))
            return
    raise SpecDecError("llama.cpp does not answer: its stream ended early.")


def llama_cpp_rounds(
    server: LlamaCpp,
    pair: LoadedPair,
    prompt: Prompt,
    settings: Settings,
    turn: FairLock,
    cancelled: Callable[[], bool],
) -> Generator[Round, None, None]:
    """Yield llama.cpp's answer as it comes, a round a token; the first, with the prefill, has index 0.

    Holds `turn` from beginning to end, so that no other answer takes the cores. Raises PromptError, and
    SpecDecError if llama.cpp fails.
    """
    prompt_ids, room = prompt_ids_with_room(pair, prompt, server.context_length)
    finish: FinishReason = "length" if settings.max_new_tokens <= room else "context"
    settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, room))
    text = AnswerText(pair.tokenizer, prompt_ids, pair.eos_ids, settings.stop)
    rounds: list[Round] = []
    position = 0
    with turn:
        before = time.perf_counter()
        with closing(server.stream(prompt_ids, settings)) as chunks:
            for chunk in chunks:
                # It ends at an EOS without saying which.
                ids = [min(pair.eos_ids)] if chunk.end == "eos" and pair.eos_ids else chunk.ids
                now = time.perf_counter()
                if ids:
                    kept, reason = text.feed(ids)
                    rounds.append(
                        plain_round("llama.cpp", len(rounds), position, ids[:kept], now - before, text)
                    )
                    position += kept
                    before = now
                    yield rounds[-1]
                    if reason is not None:
                        finish = reason
                        break
                if cancelled():
                    finish = "cancelled"
                    break
    stats = summarize(
        rounds,
        time_to_first_token_s=rounds[0].seconds if rounds else 0.0,
        prompt_tokens=len(prompt_ids),
        seed=settings.seed,
    )
    last = plain_round("llama.cpp", len(rounds), position, [], 0.0, text, final=True)
    yield replace(last, finish_reason=finish, stats=stats)
