"""Thoughts of models that reason before they answer: told apart from the answer proper, as the text comes.

Knows nothing of ids or templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .overlap import overlap


@dataclass(frozen=True, slots=True)
class ThoughtTags:
    """The text that a thought begins and ends with."""

    opening: str
    closing: str


KNOWN_TAGS = (
    ThoughtTags("<think>", "</think>"),
    ThoughtTags("<thinking>", "</thinking>"),
    ThoughtTags("<seed:think>", "</seed:think>"),
    ThoughtTags("[THINK]", "[/THINK]"),
)


class ThoughtSplit:
    """Split of a text into the thought that it begins with, if it does, and the answer proper.

    The tags and the white space around them are left out. `opened` is True if the prompt has the opening tag.
    Text that may belong to a tag is withheld.
    """

    def __init__(self, tags: ThoughtTags, opened: bool) -> None:
        self._tags = tags
        self._state: Literal["before", "inside", "after", "answer"] = "inside" if opened else "before"
        self._withheld = ""
        self._has_thought = False
        self.found = opened
        """True if there is a thought."""

    @property
    def answers(self) -> bool:
        """True once the answer proper has begun."""
        return self._state == "answer"

    def add(self, text: str) -> tuple[str, str]:
        """Take text. Return what it adds to the thought and to the answer."""
        self._withheld += text
        thought = ""
        if self._state == "before":
            self._enter()
        if self._state == "inside":
            thought = self._think()
        if self._state == "after":
            self._withheld = self._withheld.lstrip()
            if self._withheld:
                self._state = "answer"
        answer = ""
        if self._state == "answer":
            answer, self._withheld = self._withheld, ""
        return thought, answer

    def finish(self) -> tuple[str, str]:
        """Return what the withheld text adds to the thought and to the answer, since no text follows."""
        rest, self._withheld = self._withheld, ""
        return (rest.rstrip(), "") if self._state == "inside" else ("", rest)

    def _enter(self) -> None:
        begun = self._withheld.lstrip()
        if begun.startswith(self._tags.opening):
            self._withheld = begun.removeprefix(self._tags.opening)
            self._state, self.found = "inside", True
        elif not self._tags.opening.startswith(begun):
            self._state = "answer"

    def _think(self) -> str:
        if not self._has_thought:
            self._withheld = self._withheld.lstrip()
        thought, closing, rest = self._withheld.partition(self._tags.closing)
        if closing:
            thought, self._withheld, self._state = thought.rstrip(), rest, "after"
        else:
            # An end that may begin the closing tag is withheld.
            thought = self._withheld[: len(thought) - overlap(thought, self._tags.closing)].rstrip()
            self._withheld = self._withheld[len(thought) :]
        self._has_thought = self._has_thought or bool(thought)
        return thought
