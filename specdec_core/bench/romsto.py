"""A checkout of romsto/Speculative-Decoding, measured on the same pair; nothing of it is kept here."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from ..errors import SettingsError
from ..pair import LoadedPair
from ..peers import stock_models
from ..settings import Settings
from .lanes import Answer
from .peers import timed_answer

_FILES = ("sampling/base_decoding.py", "sampling/speculative_decoding.py", "utils/logits_processor.py")
_PACKAGES = ("sampling", "utils", "ngram_assisted", "models")


class Romsto:
    """The functions of a checkout. Raises SettingsError where `path` is none, or cannot be imported."""

    def __init__(self, path: str) -> None:
        folder = Path(path)
        if missing := [name for name in _FILES if not (folder / name).is_file()]:
            raise SettingsError(
                f"{path} is no checkout of romsto/Speculative-Decoding: it lacks {', '.join(missing)}."
            )
        try:
            with _importing_from(folder.resolve()):
                sampling = importlib.import_module("sampling")
                processors = importlib.import_module("utils.logits_processor")
                self._autoregressive = sampling.autoregressive_generate
                self._speculative = sampling.speculative_generate
                self._greedy = processors.GreedyProcessor
                self._multinomial = processors.MultinomialProcessor
        except (ImportError, AttributeError) as error:
            raise SettingsError(
                f"{path} cannot be measured: {error}. Install what its requirements.txt names, and check out "
                "a version with autoregressive_generate and speculative_generate."
            ) from error

    def answer(self, pair: LoadedPair, settings: Settings, gamma: int | None) -> Answer:
        """A lane of its speculative decoding, or of its autoregressive decoding where gamma is None.

        Without a KV cache, which is its default: with use_cache=True it feeds every id again in each step,
        after those that the cache already holds, so that its answers are no longer the model's.
        """
        processor = self._multinomial(settings.temperature) if settings.temperature > 0 else self._greedy(1.0)
        common = {
            "logits_processor": processor,
            "max_gen_len": settings.max_new_tokens,
            "eos_tokens_id": sorted(pair.eos_ids) or [-1],
            "pad_token_id": min(pair.eos_ids, default=0),
            "use_cache": False,
        }

        def ids_for(prompt_ids: list[int]) -> list[int]:
            with stock_models(pair):
                if gamma is None:
                    return self._autoregressive(prompt_ids, pair.target.model, **common)
                ids, _ = self._speculative(
                    prompt_ids, pair.drafter.model, pair.target.model, gamma=gamma, **common
                )
                return ids

        return timed_answer(pair, ids_for)


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Its packages have everyday names (utils, models), so they are importable only within this."""
    hidden = {name: module for name, module in sys.modules.items() if name.split(".")[0] in _PACKAGES}
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in _PACKAGES]:
            del sys.modules[name]
        sys.modules.update(hidden)
