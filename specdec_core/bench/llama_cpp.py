"""A lane of llama.cpp on the GGUF file of the pair's target."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from ..errors import SettingsError
from ..llama_cpp import LlamaCpp, package
from ..pair import LoadedPair
from ..settings import Settings
from ..text.prompting import Prompt
from .lanes import Answer, Sample


def require_llama_cpp(path: str) -> None:
    """Raise SettingsError if the package is not installed, or if there is no such file."""
    if not Path(path).is_file():
        raise SettingsError(f"--llama-cpp: there is no file {path}.")
    package()


def llama_cpp_answer(server: LlamaCpp, pair: LoadedPair, settings: Settings) -> Answer:
    """Return a lane of plain decoding, whose time of decoding is llama.cpp's own figure."""

    def answer(prompt: Prompt, seed: int) -> Sample:
        ids = pair.prompter.encode(prompt)
        started = time.perf_counter()
        timings = server.complete(ids, replace(settings, seed=seed))["timings"]
        answer_s = time.perf_counter() - started
        tokens, decode_s = timings["predicted_n"], timings["predicted_ms"] / 1000
        # Its clock starts with the first token, which the prefill gives, as ours does.
        return Sample(tokens, answer_s, decoded=(tokens - 1, decode_s) if tokens > 1 else None)

    return answer
