"""Does the second turn of a conversation wait for its new message only, or for the whole conversation?"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..engine import Engine
from ..settings import Settings
from ..text.prompting import Prompt

HISTORIES = (100, 400, 1600)
_FIRST_ANSWER = 8
_FILLER = "Once upon a time there was a little dog who lived in a big house near the sea. "
_FOLLOW_UP = "And what did the dog do then?"


@dataclass(frozen=True, slots=True)
class SecondTurn:
    """Medians of the time to the first token after `history_tokens`, with the session's caches and without;
    `new_tokens` of the prompt were not in the caches.
    """

    history_tokens: int
    new_tokens: int
    cached_s: float
    uncached_s: float


def history(engine: Engine, lengths: Sequence[int], repetitions: int) -> dict:
    """Conversations of each length take turns within a repetition; a first repetition is not kept."""
    room = engine.pair.context_length - 64
    fitting = [length for length in lengths if length <= room]
    found: dict[int, list[SecondTurn]] = {length: [] for length in fitting}
    for repetition in range(-1, repetitions):
        for length in fitting:
            turn = _second_turn(engine, length)
            if repetition >= 0:
                found[length].append(turn)
    return {
        "repetitions": repetitions,
        "turns": [dataclasses.asdict(_medians(turns)) for turns in found.values()],
        "skipped": [length for length in lengths if length > room],
        "context_length": engine.pair.context_length,
    }


def history_lines(report: dict) -> list[str]:
    lines = [
        f"time to the first token of a second turn, median of {report['repetitions']}",
        f"{'history':>8}  {'new':>5}  {'with caches':>11}  {'without':>9}",
        f"{'tokens':>8}  {'':>5}  {'ms':>11}  {'ms':>9}",
    ]
    for turn in report["turns"]:
        lines.append(
            f"{turn['history_tokens']:>8}  {turn['new_tokens']:>5}  {1000 * turn['cached_s']:>11.1f}  "
            f"{1000 * turn['uncached_s']:>9.1f}"
        )
    if report["skipped"]:
        skipped = ", ".join(map(str, report["skipped"]))
        lines.append(f"skipped, longer than the context of {report['context_length']}: {skipped}")
    return lines


def _second_turn(engine: Engine, length: int) -> SecondTurn:
    settings = Settings(max_new_tokens=_FIRST_ANSWER, temperature=0, gamma=0)
    chats = engine.pair.tokenizer.chat_template is not None
    session = engine.session()
    first = _first_turn(engine, length - _FIRST_ANSWER, chats)
    answer = engine.generate(first, settings, session).text
    follow_up = _followed_up(first, answer, chats)
    cached = engine.generate(follow_up, settings, session).stats
    uncached = engine.generate(follow_up, settings).stats
    return SecondTurn(
        history_tokens=cached.cached_prompt_tokens,
        new_tokens=cached.prompt_tokens - cached.cached_prompt_tokens,
        cached_s=cached.time_to_first_token_s,
        uncached_s=uncached.time_to_first_token_s,
    )


def _first_turn(engine: Engine, tokens: int, chats: bool) -> Prompt:
    """A first message of about `tokens` tokens, template included."""
    prompter = engine.pair.prompter
    words = (_FILLER * (tokens // 8 + 1)).split()
    low, high = 1, len(words)
    while low < high:
        middle = (low + high + 1) // 2
        text = " ".join(words[:middle])
        ids = prompter.encode_chat(_user(text)) if chats else prompter.encode_raw(text)
        low, high = (middle, high) if len(ids) <= tokens else (low, middle - 1)
    text = " ".join(words[:low])
    return _user(text) if chats else text


def _followed_up(first: Prompt, answer: str, chats: bool) -> Prompt:
    if not chats:
        return f"{first}{answer} {_FOLLOW_UP}"
    return [*first, {"role": "assistant", "content": answer or "…"}, *_user(_FOLLOW_UP)]


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _medians(turns: Sequence[SecondTurn]) -> SecondTurn:
    return SecondTurn(
        history_tokens=turns[0].history_tokens,
        new_tokens=turns[0].new_tokens,
        cached_s=statistics.median(turn.cached_s for turn in turns),
        uncached_s=statistics.median(turn.uncached_s for turn in turns),
    )
