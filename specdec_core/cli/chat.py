"""Chat in the terminal, with drafts styled by their outcome. Uses the engine's public interface only."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import dataclass

from ..chat_engine import ChatEngine, ChatSession
from ..errors import SpecDecError
from ..plain_text import find_surrogate
from ..settings import Settings
from ..text.prompting import Message
from ..trace import Round, Stats, TokenKind
from ..units import counted
from .streams import report

_STYLES: dict[TokenKind, str | None] = {
    "accepted": "\033[4m",  # underlined
    "rejected": "\033[2;9m",  # faint and struck through
    "untested": None,
    "correction": "\033[1m",  # bold
    "bonus": "\033[1;4m",
    "plain": "",
}
"""ANSI escape sequences by kind of token; None hides the token."""
_HELP = "/drafts shows or hides drafts, /clear starts anew, /quit or Ctrl-D ends, Ctrl-C stops an answer."
_THOUGHTS_HELP = " /thoughts shows or hides what the model thinks before it answers."


@dataclass(slots=True)
class _Shown:
    """Parts that are printed beside the text of an answer."""

    drafts: bool
    thoughts: bool = False


def chat(engine: ChatEngine, settings: Settings) -> int:
    """Answer messages from stdin until it ends. Return the exit code."""
    session = engine.session()
    messages: list[Message] = []
    shown = _Shown(drafts=sys.stdout.isatty())
    commands = _HELP + (_THOUGHTS_HELP if engine.info.thinks else "")
    print(f"{engine.info.title} on {engine.info.device_and_threads}. {commands}", file=sys.stderr)
    while True:
        try:
            typed = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return 0
        if typed == "/quit":
            return 0
        if find_surrogate(typed) is not None:
            report(f"error: not sent: the line is not {sys.stdin.encoding} text.")
            continue
        if typed == "/clear":
            messages = []
        elif typed == "/drafts":
            shown.drafts = not shown.drafts
        elif typed == "/thoughts":
            shown.thoughts = not shown.thoughts
        else:
            messages = _answer(engine, settings, session, [*messages, _message("user", typed)], shown)


def _answer(
    engine: ChatEngine,
    settings: Settings,
    session: ChatSession,
    messages: list[Message],
    shown: _Shown,
) -> list[Message]:
    """Print an answer. Return the conversation with it, also as far as it came before an error; without the
    last message if there is nothing of an answer.
    """
    text = ""
    stats: Stats | None = None
    thought = _ThoughtLine(shown.thoughts)
    try:
        with closing(engine.stream(messages, settings, session)) as rounds:
            for rnd in rounds:
                # Tokens of a thought are not drawn, nor is the round that ends it, which has tokens of both.
                drafts = shown.drafts and (text != "" or not engine.info.thinks)
                text += rnd.text
                stats = rnd.stats
                thought.show(rnd)
                print(_styled(rnd) if drafts else rnd.text, end="", flush=True)
        thought.close()
        print()
        if stats is not None:
            print(figures(stats), file=sys.stderr)
    except KeyboardInterrupt:
        print(" (stopped)")
    except SpecDecError as error:
        if text:
            print(flush=True)
        report(f"error: {error}")
        if not text:
            return messages[:-1]
    if not text:
        print("note: no answer came, so the message is no part of the conversation.", file=sys.stderr)
        return messages[:-1]
    return [*messages, _message("assistant", text)]


class _ThoughtLine:
    """A thought before an answer, faint: its text, or one word in its place."""

    def __init__(self, whole: bool) -> None:
        self._whole = whole
        self._open = False

    def show(self, rnd: Round) -> None:
        """Print what a round adds to the thought, and end it if the answer proper begins."""
        if self._whole:
            self._print(rnd.thought)
        elif rnd.thought and not self._open and sys.stdout.isatty():
            self._print("Thinking…")
        if rnd.text:
            self.close()

    def close(self) -> None:
        """End the thought with an empty line, if there is one."""
        if self._open:
            print("\n", flush=True)
        self._open = False

    def _print(self, text: str) -> None:
        if text:
            self._open = True
            print(f"\033[2m{text}\033[0m" if sys.stdout.isatty() else text, end="", flush=True)


def figures(stats: Stats) -> str:
    """Return a line of figures: tokens/s, acceptance rate, block efficiency, time to first token, and the
    tokens of a thought if there are any.
    """
    rate = f"{stats.tokens_per_second:.0f} tokens/s" if stats.tokens_per_second else "– tokens/s"
    first = f"first token after {stats.time_to_first_token_s * 1000:.0f} ms"
    if stats.dropped_messages:
        dropped = counted(stats.dropped_messages, "message")
        first += f"; {dropped} at the beginning left out, for want of room"
    if stats.thought_tokens:
        answered = stats.new_tokens - stats.thought_tokens
        first += f"; {counted(stats.thought_tokens, 'token')} of thought, {answered} of answer"
    if stats.acceptance_rate is None or stats.block_efficiency is None:
        return f"{rate}, {first}"
    return (
        f"{rate}, {stats.acceptance_rate:.0%} of tested drafts stood, "
        f"{stats.block_efficiency:.2f} tokens a round, {first}"
    )


def _styled(rnd: Round) -> str:
    pieces = []
    for token in rnd.tokens:
        style = _STYLES[token.kind]
        if style is not None:
            text = token.text if token.kind != "rejected" else token.text.replace("\n", "⏎")
            pieces.append(f"{style}{text}\033[0m" if style else text)
    return "".join(pieces)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
