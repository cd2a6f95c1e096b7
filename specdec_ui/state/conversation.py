"""A visitor's conversation: its messages, and the values of the page's two views of it.

Knows the engine's public names; nothing of Gradio's events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field

import specdec_core as sd

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
    """A question, and the conversation before it: number of messages, length of the transcript, tokens."""

    question: str
    message_count: int
    transcript_length: int
    tokens: str


@dataclass(frozen=True)
class QuestionAdded:
    """First step of an answer: the question is in the conversation, and no round has been decoded."""


Step = QuestionAdded | sd.Round
"""A step of an answer."""


@dataclass
class Conversation:
    """Messages and turns; `transcript` and `tokens` are the values of the conversation and token views."""

    messages: list[dict[str, str]] = field(default_factory=list)
    transcript: str = ""
    tokens: str = ""
    turns: list[Turn] = field(default_factory=list)

    @property
    def question(self) -> str:
        """The last question. Raises PromptError if there is none."""
        if not self.turns:
            raise sd.PromptError("Nothing has been asked yet. Send a message first.")
        return self.turns[-1].question

    def clear(self) -> None:
        """Remove everything."""
        self.messages, self.transcript, self.tokens, self.turns = [], "", "", []

    def undo(self) -> None:
        """Remove the last question and its answer, if there is one."""
        if self.turns:
            turn = self.turns.pop()
            self.transcript, self.tokens = self.transcript[: turn.transcript_length], turn.tokens
            del self.messages[turn.message_count :]

    def note(self, text: str) -> None:
        """Add a remark of the page between turns."""
        self.transcript += json_line(event="note", text=text)

    def ask(
        self,
        text: str,
        engine: sd.ChatEngine,
        settings: sd.Settings,
        session: sd.ChatSession | None,
        cancel: threading.Event,
        system: str = "",
        again: bool = False,
    ) -> Generator[Step]:
        """Yield the steps of the answer to `text`; the two views have grown by each before it is yielded.

        `system` is the system message of this answer; `again` replaces the last question and its answer.
        Raises what the engine raises; before the first round, that leaves the conversation unchanged.
        """
        started = time.perf_counter()
        before = (list(self.messages), self.transcript, self.tokens, list(self.turns))
        if again:
            self.undo()
        self.turns.append(Turn(text, len(self.messages), len(self.transcript), self.tokens))
        self.messages.append({"role": "user", "content": text})
        head = [{"role": "system", "content": system}] if system else []
        self.transcript += json_line(event="user", text=text)
        self.transcript += json_line(event="answer", who=engine.info.title, figures=FIGURES)
        self.tokens = token_view.answer_line(len(self.turns), text, asdict(settings))
        live, answer, last = LiveFigures(), [], None
        try:
            yield QuestionAdded()
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
                self.messages, self.transcript, self.tokens, self.turns = before
            else:
                self._settle("".join(answer), last)

    def _show_round(self, rnd: sd.Round, live: LiveFigures) -> None:
        if rnd.thought:
            self.transcript += json_line(event="thought", text=rnd.thought)
        if rnd.text:
            self.transcript += json_line(event="text", text=rnd.text)
        self.tokens += token_view.round_line(rnd)
        stats = rnd.stats
        figures = final_figures(stats) if stats else live.figures()
        self.transcript += json_line(event="figures", values=figures)
        if rnd.finish_reason is not None:
            remarks = [in_words(stats) if stats else "", ENDINGS.get(rnd.finish_reason, "")]
            self.transcript += json_line(event="end", remarks=[remark for remark in remarks if remark])
            self.tokens += token_view.end_line(rnd.finish_reason)
            if stats and stats.dropped_messages:
                dropped = sd.counted(stats.dropped_messages, "message")
                self.note(
                    f"The answer above was made without {dropped} at the beginning of the conversation: this "
                    "pair's context has no room for more."
                )

    def _settle(self, answer: str, last: sd.Round) -> None:
        """Add the answer to the messages. Without text, its question is removed: templates require text."""
        if last.finish_reason is None:
            self.transcript += json_line(event="end", remarks=["Broken off."])
        if answer:
            self.messages.append({"role": "assistant", "content": answer})
        else:
            self.note("No answer came, so the question above is no part of the conversation.")
            self.messages.pop()
