"""A ChatEngine that replays made-up rounds, for tests of handlers and views."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import specdec_core as sd
from specdec_ui.state.holder import EngineHolder, Load
from specdec_ui.state.presets import Presets

STORY = (
    "Once upon a time there was a little cat who lived in a big red house. Every day the cat sat by the "
    'door and looked at the birds. "Can I play with you?" asked the cat.\n\nThe birds were kind, and they '
    "sang a song together until the sun went down."
)


def replay_info(**changes: Any) -> sd.EngineInfo:
    """Return the info of a replayed pair."""
    info = sd.EngineInfo(
        preset="replay",
        title="Replayed pair",
        target="presets/replay/target",
        drafter="presets/replay/drafter",
        device="CPU",
        dtype="float32",
        target_quantization="none",
        drafter_quantization="none",
        runner="eager",
        runner_reason=None,
        context_length=2048,
        target_parameters=15_400_000,
        drafter_parameters=620_000,
        memory_bytes=64 * 2**20,
        takes_system_message=False,
    )
    return replace(info, **changes)


def replay_preset(name: str = "replay") -> sd.Preset:
    """Return a preset of a replayed pair."""
    return sd.Preset.model_validate(
        {
            "name": name,
            "title": "Replayed pair",
            "description": "A target that tells stories and a drafter trained on what it tells.",
            "license": "MIT",
            "target": {"model": "presets/replay/target"},
            "drafter": {"model": "presets/replay/drafter"},
            "examples": [
                "Tell me a story about a cat.",
                "Tell me a story about the rain.",
                "Tell me a story about a lost toy.",
            ],
        }
    )


def replay_presets(*names: str) -> Presets:
    """Return presets of replayed pairs, none of them broken."""
    return Presets({name: replay_preset(name) for name in names})


def pieces(text: str) -> list[str]:
    """Return the text in pieces like a tokenizer's."""
    words = text.replace("\n", " \n").split(" ")
    return [words[0]] + [word if word.startswith("\n") else " " + word for word in words[1:]]


def rounds_of(text: str, gamma: int | Literal["auto"] = 4, seed: int = 0) -> list[sd.Round]:
    """Return rounds that emit `text`, with every kind of token that gamma allows; "auto" is 4."""
    if gamma == "auto":
        gamma = 4
    rng = random.Random(seed)
    left = pieces(text)
    rounds = [
        sd.Round(0, 0, 0, "prefill", [_token(left.pop(0), "plain", rng)], pieces(text)[0], 0.0, 0.02, 0.001)
    ]
    at = 1
    while left:
        tokens: list[sd.Token] = []
        stood = 0
        while gamma and stood < min(gamma, len(left) - 1) and rng.random() < 0.75:
            tokens.append(_token(left[stood], "accepted", rng))
            stood += 1
        if gamma and stood < gamma and len(left) > 1:
            tokens.append(_token(rng.choice([" dog", " the", " very", "."]), "rejected", rng))
            tokens += [_token(" and", "untested", rng) for _ in range(gamma - stood - 1)]
        own = "plain" if not tokens else "bonus" if stood == gamma else "correction"
        tokens.append(_token(left[stood], own, rng))
        emitted = left[: stood + 1]
        left = left[stood + 1 :]
        rounds.append(
            sd.Round(len(rounds), at, gamma, "fixed", tokens, "".join(emitted), 0.004, 0.008, 0.001)
        )
        at += len(emitted)
    return rounds


def _token(text: str, kind: sd.TokenKind, rng: random.Random) -> sd.Token:
    p = rng.uniform(0.01, 0.2) if kind == "rejected" else rng.uniform(0.3, 0.99)
    return sd.Token(
        zlib.crc32(text.encode(errors="replace")),
        text,
        kind,
        p,
        None if kind == "plain" else rng.uniform(0.3, 0.95),
    )


@dataclass(frozen=True)
class ReplayCosts:
    """Step costs of a replayed pair."""

    drafter: float = 0.1

    def v(self, rows: int) -> float:
        return 1 + 0.05 * (rows - 1)


@dataclass
class ReplaySession:
    """A conversation, of which only the end is recorded."""

    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass
class ReplayEngine:
    """A ChatEngine that answers every message with `text`; it refuses messages longer than `limit`.

    `pace_s` is the time of a round. With `permits`, each round first takes one, so that a test decides how
    far an answer has come. `given` are rounds in place of the text's. `prompts` are those answered so far.
    """

    text: str = STORY
    pace_s: float = 0.0
    limit: int = 10_000
    info: sd.EngineInfo = field(default_factory=replay_info)
    report: sd.PairReport | None = None
    default_settings: sd.Settings = field(default_factory=sd.Settings)
    costs: dict[Any, ReplayCosts] = field(
        default_factory=lambda: {"model": ReplayCosts(), "ngram": ReplayCosts(0.0)}
    )
    permits: threading.Semaphore | None = None
    given: list[sd.Round] | None = None
    unloaded: bool = False
    prompts: list[list[dict[str, str]]] = field(default_factory=list)

    def session(self) -> ReplaySession:
        return ReplaySession()

    def unload(self) -> None:
        self.unloaded = True

    def stream(
        self,
        prompt: sd.Prompt,
        settings: sd.Settings | None = None,
        session: sd.ChatSession | None = None,
        cancel: threading.Event | None = None,
    ) -> Generator[sd.Round, None, None]:
        assert not self.unloaded
        assert not isinstance(prompt, str)
        messages = [dict(message) for message in prompt]
        if len(messages[-1]["content"]) > self.limit:
            raise sd.PromptError(f"The message has more than {self.limit} tokens. Shorten it and send again.")
        self.prompts.append(messages)
        gamma = (settings or self.default_settings).gamma
        return self.rounds(self.given or rounds_of(self.text, gamma), cancel or threading.Event())

    def rounds(self, rounds: list[sd.Round], cancel: threading.Event) -> Generator[sd.Round, None, None]:
        """Yield the rounds at the engine's pace, until `cancel` is set."""
        yielded: list[sd.Round] = []
        for rnd in rounds:
            if self.permits is not None:
                self.permits.acquire()
            if self.pace_s:
                time.sleep(self.pace_s)
            cancelled = cancel.is_set()
            yielded.append(rnd)
            if cancelled or rnd is rounds[-1]:
                stats = sd.summarize(yielded, time_to_first_token_s=0.05, prompt_tokens=9)
                yield replace(rnd, finish_reason="cancelled" if cancelled else "eos", stats=stats)
                return
            yield rnd

    def peer_stream(
        self,
        prompt: sd.Prompt,
        settings: sd.Settings | None = None,
        *,
        peer: sd.Peer,
        cancel: threading.Event | None = None,
    ) -> Generator[sd.Round, None, None]:
        plain = replace(settings or self.default_settings, gamma=0)
        return self.stream(prompt, plain, cancel=cancel)

    def margin(self, prompt: sd.Prompt, answer: Sequence[int], settings: sd.Settings) -> float | None:
        return None


if TYPE_CHECKING:
    _: type[sd.ChatEngine] = ReplayEngine


def load_in_turn(*engines: sd.ChatEngine) -> Load:
    """Return a loader that takes the next engine at each load."""
    left = iter(engines)
    return lambda preset, on_progress, cancel: next(left)


def no_progress(message: str, fraction: float | None) -> None:
    """Ignore the progress of a load."""


def loaded_holder(*engines: sd.ChatEngine) -> EngineHolder:
    """Return a holder in which the first engine is loaded, by default a ReplayEngine."""
    holder = EngineHolder(load_in_turn(*(engines or [ReplayEngine()])))
    holder.load(replay_preset(), no_progress)
    return holder
