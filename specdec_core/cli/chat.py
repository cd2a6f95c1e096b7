"""A conversation in the terminal, drafts shown as they stand or fall. Knows the engine's public face only."""

from __future__ import annotations

import sys

from ..engine import Engine
from ..errors import SpecDecError
from ..settings import Settings
from ..trace import Round, Stats

_STYLES = {
    "accepted": "\033[4m",  # underlined
    "rejected": "\033[2;9m",  # faint and struck through
    "untested": None,
    "correction": "\033[1m",  # bold
    "bonus": "\033[1;4m",
    "plain": "",
}
_HELP = "/drafts shows or hides drafts, /clear starts anew, /quit or Ctrl-D ends, Ctrl-C stops an answer."


def chat(engine: Engine, settings: Settings) -> int:
    """Reads messages from stdin until it ends. Returns the exit code."""
    session = engine.session()
    messages: list[dict[str, str]] = []
    show_drafts = sys.stdout.isatty()
    print(f"{engine.info.title} on {engine.info.device}. {_HELP}", file=sys.stderr)
    while True:
        try:
            typed = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return 0
        if typed == "/quit":
            return 0
        if typed == "/clear":
            messages = []
        elif typed == "/drafts":
            show_drafts = not show_drafts
        else:
            messages = _answered(engine, settings, session, [*messages, _message("user", typed)], show_drafts)


def _answered(engine: Engine, settings: Settings, session, messages: list, show_drafts: bool) -> list:
    """The conversation with the answer at its end; without the last message where it was refused."""
    text = ""
    try:
        for rnd in engine.stream(messages, settings, session):
            text += rnd.text
            print(_styled(rnd) if show_drafts else rnd.text, end="", flush=True)
        print()
        print(figures(rnd.stats), file=sys.stderr)
    except KeyboardInterrupt:
        print(" (stopped)")
    except SpecDecError as error:
        print(f"error: {error}", file=sys.stderr)
        return messages[:-1]
    return [*messages, _message("assistant", text)]


def figures(stats: Stats) -> str:
    """One line: tokens/s, acceptance rate, block efficiency, time to first token."""
    rate = f"{stats.tokens_per_second:.0f} tokens/s" if stats.tokens_per_second else "– tokens/s"
    first = f"first token after {stats.time_to_first_token_s * 1000:.0f} ms"
    if stats.dropped_messages:
        first += f"; the oldest {stats.dropped_messages} messages no longer fit and were left out"
    if stats.acceptance_rate is None:
        return f"{rate}, {first}"
    return (
        f"{rate}, {stats.acceptance_rate:.0%} of tested drafts stood, "
        f"{stats.block_efficiency:.2f} tokens a round, {first}"
    )


def _styled(rnd: Round) -> str:
    out = []
    for token in rnd.tokens:
        style = _STYLES[token.kind]
        if style is not None:
            text = token.text if token.kind != "rejected" else token.text.replace("\n", "⏎")
            out.append(f"{style}{text}\033[0m" if style else text)
    return "".join(out)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
