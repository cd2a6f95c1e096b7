"""Lanes of a checkout of romsto/Speculative-Decoding, run on the same pair. None of its code is kept here."""

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
    """The functions of a checkout. Raises SettingsError if `path` is no checkout or cannot be imported."""

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
        """Return a lane of its speculative decoding, or of its autoregressive decoding if gamma is None.

        It runs without a KV cache, its default: with use_cache=True it feeds all ids again in each step, on
        top of the cached ones, so that its answers are not the model's. Raises SettingsError if there is no
        drafter to speculate with.
        """
        drafter = pair.drafter
        if gamma is not None and drafter is None:
            raise SettingsError("--romsto with a gamma needs a pair with a drafter.")
        processor = self._multinomial(settings.temperature) if settings.temperature > 0 else self._greedy(1.0)
        common = {
            "logits_processor": processor,
            "max_gen_len": settings.max_new_tokens,
            "eos_tokens_id": sorted(pair.eos_ids) or [-1],
            "pad_token_id": min(pair.eos_ids, default=0),
            "use_cache": False,
        }

        def generate(prompt_ids: list[int]) -> list[int]:
            with stock_models(pair):
                if gamma is None or drafter is None:
                    return self._autoregressive(prompt_ids, pair.target.model, **common)
                ids, _ = self._speculative(
                    prompt_ids, drafter.model, pair.target.model, gamma=gamma, **common
                )
                return ids

        return timed_answer(pair, generate)


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Make the checkout's packages importable within the context: their names (utils, models) are common."""
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
