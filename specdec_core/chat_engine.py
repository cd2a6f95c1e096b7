"""The part of an Engine that chat and comparison use; replayed and remote engines have it too.

Knows nothing of how answers are made.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from .settings import Settings
from .trace import DraftSource, Round

if TYPE_CHECKING:
    from .gate.report import PairReport
    from .loading.engine_info import EngineInfo
    from .text.prompting import Prompt


Peer = Literal["generate", "assisted", "llama_cpp"]
"""Other code that answers with the target: transformers' generate, alone and assisted by the drafter, and
llama.cpp.
"""


def available_peers() -> tuple[Peer, ...]:
    """Return the peers whose packages are installed."""
    missing = {"llama_cpp"} if find_spec("xllamacpp") is None else set()
    return tuple(peer for peer in get_args(Peer) if peer not in missing)


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
    def costs(self) -> Mapping[DraftSource, MeasuredCosts]:
        """Step costs by drafter ("model", "ngram"), as measured so far."""
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
        peer: Peer,
        cancel: threading.Event | None = None,
    ) -> Generator[Round, None, None]:
        """Yield what other code answers with the target's weights, a round of plain tokens a step. Raises
        SettingsError, PromptError and other SpecDecErrors.
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
