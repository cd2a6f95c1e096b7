"""A lane of llama.cpp on the GGUF file of the pair's target, in this process, by the package xllamacpp."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from ..errors import SettingsError, quote
from ..pair import LoadedPair
from ..settings import Settings
from ..text.prompting import Prompt
from .lanes import Answer, Sample

_MOST_CONTEXT = 4096
_SILENT = -1
"""llama.cpp's verbosity for errors alone."""


def require_llama_cpp(path: str) -> Any:
    """Return the package xllamacpp. Raises SettingsError if it is not installed, or if there is no such
    file.
    """
    if not Path(path).is_file():
        raise SettingsError(f"--llama-cpp: there is no file {path}.")
    try:
        import xllamacpp  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise SettingsError(
            f"--llama-cpp needs the package xllamacpp ({error}). Install it: pip install xllamacpp"
        ) from error
    return xllamacpp


class LlamaCpp:
    """llama.cpp with a GGUF loaded, on as many threads as the pair has.

    Raises SettingsError if the file cannot be loaded, or as `require_llama_cpp` does.
    """

    def __init__(self, path: str, pair: LoadedPair) -> None:
        xllamacpp = require_llama_cpp(path)
        if pair.target.device.type != "cpu":
            raise SettingsError("--llama-cpp is for pairs on a CPU. Add --device cpu.")
        params: Any = xllamacpp.CommonParams()
        params.model.path = path
        params.n_ctx = min(_MOST_CONTEXT, pair.context_length)
        params.n_parallel = 1
        params.verbosity = _SILENT
        threads = pair.target.threads or torch.get_num_threads()
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        try:
            self._server: Any = xllamacpp.Server(params)
        except Exception as error:
            raise SettingsError(f"--llama-cpp: llama.cpp cannot load {path}: {quote(error)}") from error

    def answer(self, pair: LoadedPair, settings: Settings) -> Answer:
        """Return a lane of plain decoding. It gets the ids of our prompt, so the GGUF must be of the pair's
        target; its time of decoding is llama.cpp's own figure.
        """

        def answer(prompt: Prompt, seed: int) -> Sample:
            request = {
                "prompt": pair.prompter.encode(prompt),
                "n_predict": settings.max_new_tokens,
                "temperature": settings.temperature,
                "top_k": 0 if settings.temperature > 0 else 1,
                "top_p": 1.0,
                "min_p": 0.0,
                "samplers": ["top_k", "temperature"],
                "seed": seed,
                "cache_prompt": False,
            }
            started = time.perf_counter()
            done = self._server.handle_completions(request)
            answer_s = time.perf_counter() - started
            if "timings" not in done:
                raise SettingsError(f"--llama-cpp: llama.cpp does not answer: {str(done)[:300]}")
            timings = done["timings"]
            tokens, decode_s = timings["predicted_n"], timings["predicted_ms"] / 1000
            # Its clock starts with the first token, which the prefill gives, as ours does.
            return Sample(tokens, answer_s, decoded=(tokens - 1, decode_s) if tokens > 1 else None)

        return answer
