"""An engine that replays made-up rounds: for tests of handlers and views that are not about a model."""

from __future__ import annotations

import random
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import specdec_core as sd
from specdec_core.metrics import summarize
from specdec_core.trace import Round, Token
from specdec_ui.state.presets import Presets

STORY = (
    "Once upon a time there was a little cat who lived in a big red house. Every day the cat sat by the "
    'door and looked at the birds. "Can I play with you?" asked the cat.\n\nThe birds were kind, and they '
    "sang a song together until the sun went down."
)


@dataclass(frozen=True)
class ReplayInfo:
    preset: str = "replay"
    title: str = "Replayed pair"
    target: str = "presets/replay/target"
    drafter: str = "presets/replay/drafter"
    device: str = "CPU"
    dtype: str = "float32"
    target_quantization: str = "none"
    drafter_quantization: str = "none"
    runner: str = "eager"
    runner_reason: str | None = None
    context_length: int = 2048
    target_parameters: int = 15_400_000
    drafter_parameters: int = 620_000
    memory_bytes: int = 64 * 2**20
    takes_system_message: bool = False


def pieces(text: str) -> list[str]:
    """The text cut where a tokenizer might cut it."""
    words = text.replace("\n", " \n").split(" ")
    return [words[0]] + [word if word.startswith("\n") else " " + word for word in words[1:]]


def rounds_of(text: str, gamma: int = 4, seed: int = 0) -> list[Round]:
    """Rounds that emit `text`, with every kind of token where gamma allows it."""
    rng = random.Random(seed)
    left = pieces(text)
    rounds = [
        Round(0, 0, 0, "prefill", [_token(left.pop(0), "plain", rng)], pieces(text)[0], 0.0, 0.02, 0.001)
    ]
    at = 1
    while left:
        tokens: list[Token] = []
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
        rounds.append(Round(len(rounds), at, gamma, "fixed", tokens, "".join(emitted), 0.004, 0.008, 0.001))
        at += len(emitted)
    return rounds


def _token(text: str, kind: str, rng: random.Random) -> Token:
    p = rng.uniform(0.01, 0.2) if kind == "rejected" else rng.uniform(0.3, 0.99)
    return Token(
        zlib.crc32(text.encode(errors="replace")),
        text,
        kind,
        p,
        None if kind == "plain" else rng.uniform(0.3, 0.95),
    )


@dataclass(frozen=True)
class ReplayCosts:
    """Measured step costs of the kind that a loaded pair holds."""

    drafter: float = 0.1

    def v(self, rows: int) -> float:
        return 1 + 0.05 * (rows - 1)


@dataclass
class ReplayEngine:
    """Answers every message with `text`; refuses messages longer than `limit` as the engine would."""

    text: str = STORY
    pace_s: float = 0.0
    limit: int = 10_000
    info: ReplayInfo = field(default_factory=ReplayInfo)
    default_settings: sd.Settings = field(default_factory=sd.Settings)
    costs: dict[str, ReplayCosts] = field(
        default_factory=lambda: {"model": ReplayCosts(), "ngram": ReplayCosts(0.0)}
    )
    unloaded: bool = False
    asked: list[list[dict[str, str]]] = field(default_factory=list)

    def session(self) -> ReplaySession:
        return ReplaySession()

    def unload(self) -> None:
        self.unloaded = True

    def stream(self, messages, settings, session=None, cancel=None) -> Iterator[Round]:
        assert not self.unloaded
        if len(messages[-1]["content"]) > self.limit:
            raise sd.PromptError(f"The message has more than {self.limit} tokens. Shorten it and send again.")
        self.asked.append(messages)
        return self._rounds(rounds_of(self.text, settings.gamma), cancel or threading.Event())

    def _rounds(self, rounds: list[Round], cancel: threading.Event) -> Iterator[Round]:
        sent: list[Round] = []
        for rnd in rounds:
            if self.pace_s:
                time.sleep(self.pace_s)
            values = rnd.to_dict()
            last = cancel.is_set() or rnd is rounds[-1]
            sent.append(Round.from_dict(values))
            if last:
                values["finish_reason"] = "cancelled" if cancel.is_set() else "eos"
                stats = summarize(sent, time_to_first_token_s=0.05, prompt_tokens=9)
                values["stats"] = asdict(stats)
            yield Round.from_dict(values)
            if last:
                return


@dataclass
class ReplaySession:
    closed: bool = False

    def close(self) -> None:
        self.closed = True


@dataclass(frozen=True)
class ReplayPreset:
    name: str
    title: str = "Replayed pair"
    description: str = "A target that tells stories and a drafter trained on what it tells."
    gated: bool = False
    license: str = "MIT"
    license_page: str | None = None
    download_gb: float = 0.0
    examples: tuple[str, ...] = (
        "Tell me a story about a cat.",
        "Tell me a story about the rain.",
        "Tell me a story about a lost toy.",
    )


def replay_presets(*names: str) -> Presets:
    """Presets of that kind, none of them broken."""
    return Presets({name: ReplayPreset(name) for name in names})
