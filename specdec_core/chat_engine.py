"""The part of an Engine that chat and comparison use; replayed and remote engines have it too.

Knows nothing of how answers are made.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from .settings import Drafting, Settings
from .trace import Round

if TYPE_CHECKING:
    from .gate.report import PairReport
    from .loading.engine_info import EngineInfo
    from .text.prompting import Prompt


class MeasuredCosts(Protocol):
    """Measured costs of steps, in one-row target steps."""

    @property
    def drafter(self) -> float:
        """The cost coefficient c: one drafter step."""
        ...

    def v(self, rows: int) -> float:
        """The cost of a target forward over `rows` rows."""
        ...


class ChatSession(Protocol):
    """One conversation with an engine. It belongs to the engine that made it."""

    def close(self) -> None:
        """Free the caches; the session cannot be used again."""
        ...


class ChatEngine(Protocol):
    """A loaded pair that answers. Safe to use from many threads."""

    @property
    def info(self) -> EngineInfo:
        """Facts about the loaded pair."""
        ...

    @property
    def report(self) -> PairReport | None:
        """The gate's report; None for a target alone."""
        ...

    @property
    def default_settings(self) -> Settings:
        """Settings for answers that are asked for without any."""
        ...

    @property
    def costs(self) -> Mapping[Drafting, MeasuredCosts]:
        """Step costs by way of drafting ("model", "ngram"), as measured so far."""
        ...

    def session(self) -> ChatSession:
        """Begin a conversation, to be passed to `stream`."""
        ...

    def stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        session: ChatSession | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[Round, None, None]:
        """Yield the rounds of an answer as they are decoded; the last has finish reason and stats.

        Setting `cancel` ends the answer after the round in progress. Raises SettingsError, PromptError and
        other SpecDecErrors.
        """
        ...

    def peer_stream(
        self,
        prompt: Prompt,
        settings: Settings | None = None,
        *,
        assisted: bool,
        cancel: threading.Event | None = None,
    ) -> Generator[Round, None, None]:
        """Yield what transformers' own generate answers, a round of plain tokens a step; with the drafter as
        its assistant where `assisted`. Raises SettingsError, PromptError and other SpecDecErrors.
        """
        ...

    def margin(self, prompt: Prompt, answer: Sequence[int], settings: Settings) -> float | None:
        """Return the difference between the two best scores for the token after `answer`: logits at
        temperature 0, log probability plus noise with coupled verification; None where it is not computed.
        """
        ...

    def unload(self) -> None:
        """Free the weights once the answers in progress have ended."""
        ...
