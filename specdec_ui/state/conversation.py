"""One visitor's conversation: what was said, and the two texts that the page's views show of it.

Knows the trace and the engine's public names; nothing of Gradio's events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any

import specdec_core as sd
from specdec_core.trace import Round, Stats

from ..parts import token_view
from ..parts.assets import json_line
from ..parts.figures import FIGURES, LiveFigures, final_figures, in_words

ENDINGS = {
    "length": "Cut off at the longest answer that the settings allow.",
    "context": "Ended because the conversation fills the context of this pair. Clear it to begin anew.",
    "cancelled": "Stopped by you.",
}


@dataclass(frozen=True)
class Turn:
    """A question and, of the conversation before it, what undoing it goes back to."""

    question: str
    messages: int
    shown: int
    tokens: str


@dataclass
class Conversation:
    """`shown` and `tokens` are the values of the conversation view and of the token view."""

    messages: list[dict[str, str]] = field(default_factory=list)
    shown: str = ""
    tokens: str = ""
    turns: list[Turn] = field(default_factory=list)

    @property
    def question(self) -> str:
        """What was asked last. Raises PromptError where nothing was."""
        if not self.turns:
            raise sd.PromptError("Nothing has been asked yet. Send a message first.")
        return self.turns[-1].question

    def clear(self) -> None:
        self.messages, self.shown, self.tokens, self.turns = [], "", "", []

    def undo(self) -> None:
        """Takes back the last question and its answer, if there is one."""
        if self.turns:
            turn = self.turns.pop()
            self.shown, self.tokens = self.shown[: turn.shown], turn.tokens
            del self.messages[turn.messages :]

    def note(self, text: str) -> None:
        """A remark of the page's own between the turns."""
        self.shown += json_line(event="note", text=text)

    def ask(
        self,
        text: str,
        engine: Any,
        settings: sd.Settings,
        session: Any,
        cancel: threading.Event,
        system: str = "",
        again: bool = False,
    ) -> Iterator[Round | None]:
        """Asks `text` and yields None, then each round after `shown` and `tokens` have grown by it.

        `system` is the system message that this answer is given under, `again` asks in place of the last
        question. Raises what the engine raises; if that is before the first round, the conversation is as it
        was.
        """
        started = time.perf_counter()
        before = (list(self.messages), self.shown, self.tokens, list(self.turns))
        if again:
            self.undo()
        self.turns.append(Turn(text, len(self.messages), len(self.shown), self.tokens))
        self.messages.append({"role": "user", "content": text})
        head = [{"role": "system", "content": system}] if system else []
        self.shown += json_line(event="user", text=text)
        self.shown += json_line(event="answer", who=engine.info.title, figures=FIGURES)
        self.tokens = token_view.answer_line(len(self.turns), text, asdict(settings))
        live, answer, last = LiveFigures(), [], None
        try:
            yield None
            with closing(engine.stream([*head, *self.messages], settings, session, cancel)) as rounds:
                for rnd in rounds:
                    if last is None:
                        live.first_token_s = time.perf_counter() - started
                    last = rnd
                    live.add(rnd)
                    answer.append(rnd.text)
                    self._show_round(rnd, live)
                    yield rnd
        finally:
            if last is None:
                self.messages, self.shown, self.tokens, self.turns = before
            else:
                self._settle("".join(answer), last)

    def _show_round(self, rnd: Round, live: LiveFigures) -> None:
        if rnd.text:
            self.shown += json_line(event="text", text=rnd.text)
        self.tokens += token_view.round_line(rnd)
        stats: Stats | None = rnd.stats
        self.shown += json_line(event="figures", values=final_figures(stats) if stats else live.figures())
        if rnd.finish_reason is not None:
            remarks = [in_words(stats) if stats else "", ENDINGS.get(rnd.finish_reason, "")]
            self.shown += json_line(event="end", remarks=[remark for remark in remarks if remark])
            self.tokens += token_view.end_line(rnd.finish_reason)
            if stats and stats.dropped_messages:
                self.note(
                    f"The oldest {stats.dropped_messages} messages no longer fit this pair's context; "
                    "the answer above was made without them."
                )

    def _settle(self, answer: str, last: Round) -> None:
        """Keeps the turn for what follows. An answer without text leaves no turn: templates want text."""
        if last.finish_reason is None:
            self.shown += json_line(event="end", remarks=["Broken off."])
        if answer:
            self.messages.append({"role": "assistant", "content": answer})
        else:
            self.messages.pop()
