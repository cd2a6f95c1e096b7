"""Lanes of a comparison: which ones run, their settings, and the answer of each.

Knows the engine's public names; nothing of the order in which lanes run.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import get_args

import specdec_core as sd

from ..state import space
from .alternation import REPEAT_S
from .comparison import PEERS

WARM_UP_TOKENS = 16
"""Most tokens of a lane's warm-up."""

LaneSettings = tuple[str, sd.Settings]
"""A lane's name and its settings."""


@dataclass(frozen=True)
class LaneChoice:
    """Lanes to run beside plain decoding and the drafter's, and how: in turns, or one after the other.

    `drafting` are other ways of drafting, a lane each; a target alone has n-gram drafting. While a speedup is
    uncertain the prompt is answered again, until `repeat_s` seconds are spent.
    """

    drafting: tuple[sd.Drafting, ...] = ()
    peers: tuple[sd.Peer, ...] = ()
    alternate: bool = True
    repeat_s: float = REPEAT_S

    @classmethod
    def named(cls, lanes: Collection[str], *, alternate: bool = True) -> LaneChoice:
        """Return the choice of the lanes with these names."""
        drafting = tuple(name for name in get_args(sd.Drafting) if name in lanes)
        return cls(drafting, tuple(name for name in PEERS if name in lanes), alternate)


def available_peers() -> tuple[sd.Peer, ...]:
    """Return the lanes of other code that may run here. On ZeroGPU llama.cpp would wait for a GPU in vain."""
    return tuple(name for name in sd.available_peers() if name != "llama_cpp" or not space.on_zero_gpu())


def plan(settings: sd.Settings, choice: LaneChoice, has_drafter: bool) -> list[LaneSettings]:
    """Return the lanes with the settings of each: one seed for all, plain decoding first, other code's lanes
    last. Raises SettingsError.
    """
    if settings.gamma == 0:
        raise sd.SettingsError(
            "gamma is 0, which is plain decoding: there is nothing to compare it with. Set it to 1 or more."
        )
    seed = secrets.randbelow(2**31) if settings.seed is None else settings.seed
    settings = replace(settings, seed=seed, drafting="model")
    own: tuple[sd.Drafting, ...] = get_args(sd.Drafting) if has_drafter else ("ngram",)
    lanes = [("plain", replace(settings, gamma=0))]
    lanes += [
        (name, replace(settings, drafting=name)) for name in own if name == own[0] or name in choice.drafting
    ]
    return lanes + [(name, settings) for name in PEERS if name in choice.peers]


@dataclass(frozen=True)
class Asker:
    """One prompt to one engine, until `cancel` is set."""

    engine: sd.ChatEngine
    prompt: str
    cancel: threading.Event

    @property
    def messages(self) -> list[dict[str, str]]:
        """The prompt as a conversation."""
        return [{"role": "user", "content": self.prompt}]

    @contextmanager
    def session(self) -> Generator[sd.ChatSession]:
        """A conversation whose caches are freed at the end of the block."""
        session = self.engine.session()
        try:
            yield session
        finally:
            session.close()

    def answer(self, lane: LaneSettings) -> Generator[sd.Round]:
        """Yield the rounds of a lane's answer, in a session of its own. Closing it ends the answer."""
        name, settings = lane
        if name in PEERS:
            yield from self.engine.peer_stream(self.messages, settings, peer=name, cancel=self.cancel)
            return
        with self.session() as session:
            yield from self.answer_in(session, settings)

    def answer_in(self, session: sd.ChatSession, settings: sd.Settings) -> Generator[sd.Round]:
        """Return the rounds of an answer of our own in a session, which keeps the prompt's caches."""
        return self.engine.stream(self.messages, settings, session, self.cancel)

    def warm_up(self, lane: LaneSettings) -> None:
        """Answer shortly, so that no counted answer waits for a set-up."""
        name, settings = lane
        short = replace(settings, max_new_tokens=min(WARM_UP_TOKENS, settings.max_new_tokens))
        for _ in self.answer((name, short)):
            pass
