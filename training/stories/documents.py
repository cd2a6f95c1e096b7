"""From stories to chat documents (who asks, in which words, what is answered) and to rows of ids.

Knows nothing of models.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from .phrases import BARE_REQUESTS, FOLLOW_UPS, OPEN_REQUESTS, REQUESTS, SMALL_TALK
from .tokenization import ASSISTANT, BEGIN, END, MAX_LENGTH, USER, token_ids
from .topics import TopicFinder

IGNORED = -100
ROW_LENGTHS = (512, 1024, MAX_LENGTH)
OPENINGS = 0.75  # of the stories asked for singly
OTHERS_LEARNED = 0.35
SMALLEST = 24  # tokens of the least document; rows with less room are full
SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True)
class Story:
    """A story, its ids, and whether it may be told as an answer (it has a beginning) or only continued."""

    text: str
    ids: list[int]
    has_opening: bool


@dataclass(frozen=True)
class Document:
    """A whole training text: the ids, and for each whether it is to be predicted."""

    ids: list[int]
    learned: list[bool]

    def followed_by(self, other: "Document") -> "Document":
        """Return the concatenation of two documents."""
        return Document(self.ids + other.ids, self.learned + other.learned)


def read_stories(path: Path, most: int | None = None) -> list[str]:
    """The first `most` stories of a file that separates them by lines of `<|endoftext|>`.

    Line breaks between paragraphs are made single, spaces too.
    """
    stories: list[str] = []
    lines: list[str] = []
    with path.open(encoding="utf-8") as file:
        for line in chain(file, [SEPARATOR]):
            words = " ".join(line.split())
            if words == SEPARATOR:
                if lines:
                    stories.append("\n".join(lines))
                lines = []
                if len(stories) == most:
                    break
            elif words:
                lines.append(words)
    return stories


class DocumentWriter:
    """Draws chat documents from stories; another draw each epoch of the requests and of what follows what."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stories: list[str], finder: TopicFinder):
        self.finder = finder
        self.tokenizer = tokenizer
        self.begin, self.end, self.user, self.assistant = token_ids(tokenizer, BEGIN, END, USER, ASSISTANT)
        encoded = tokenizer(stories, add_special_tokens=False).input_ids
        self.stories = [
            Story(text, ids, self._has_opening(text)) for text, ids in zip(stories, encoded, strict=True)
        ]

    def _has_opening(self, text: str) -> bool:
        first = text.split()[0].strip(",")
        return first in {"Once", "One", "There", "In", "A"} or first in self.finder.names

    def epoch(self, rng: random.Random) -> Iterator[Document]:
        """Every story once, in documents of one to many requests and answers."""
        order = [story for story in self.stories if story.has_opening]
        for story in self.stories:
            # A raw prompt is continued, too; a piece without a beginning serves for nothing else.
            if not story.has_opening or rng.random() < 0.06:
                yield self.raw(story)
        rng.shuffle(order)
        while order:
            kind = rng.random()
            turns = 1 if kind < 0.86 else rng.randint(2, 4) if kind < 0.98 else 9
            told = [order.pop() for _ in range(min(turns, len(order)))]
            opening = self.opening(told[0], rng) if turns == 1 and rng.random() < OPENINGS else None
            yield opening or self.conversation(told, rng)
            if rng.random() < 0.04:
                yield self.conversation([], rng)

    def raw(self, story: Story) -> Document:
        """A story that no one asked for, as a raw prompt begins one."""
        ids = [self.begin, *story.ids, self.end][:MAX_LENGTH]
        return Document(ids, [False] + [True] * (len(ids) - 1))

    def opening(self, story: Story, rng: random.Random) -> Document | None:
        """A request and only the beginning of its story, where it is decided whether the word is taken up.

        Everything asked for is learned, of the rest a part: otherwise the few tokens that depend on the
        request are lost among those that any story has. None where the beginning has no topic.
        """
        text = story.text[: rng.randint(200, 400)].rsplit(" ", 1)[0]
        topics = [each for each in self.finder.topics(story.text)[:5] if each.bare in text]
        if not topics:
            return None
        topic = rng.choices(topics, [each.weight for each in topics])[0]
        asked = self._spell(topic.phrase, rng, rng.choice(REQUESTS))
        question = [self.begin, self.user, *self.encode(asked), self.end, self.assistant]
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        named = [match.span() for match in re.finditer(rf"\b{topic.bare}", text, re.IGNORECASE)]
        learned = [
            any(start < last and first < end for first, last in named) or rng.random() < OTHERS_LEARNED
            for start, end in encoded.offset_mapping
        ]
        return Document(question + encoded.input_ids, [False] * len(question) + learned)

    def conversation(self, stories: list[Story], rng: random.Random) -> Document:
        """Requests answered by `stories`, with a little small talk between, cut at the longest position."""
        turns = []
        for story in stories:
            turns.append((self.request(story.text, rng, first=not turns), story.ids))
            if len(stories) > 1 and rng.random() < 0.12:
                turns.append(self.small_talk(rng))
        if not stories or rng.random() < 0.02:
            turns.insert(0, self.small_talk(rng))
        ids, learned = [self.begin], [False]
        for asked, answer in turns:
            question = [self.user, *self.encode(asked), self.end, self.assistant]
            ids += question + answer + [self.end]
            learned += [False] * len(question) + [True] * (len(answer) + 1)
        return Document(ids[:MAX_LENGTH], learned[:MAX_LENGTH])

    def request(self, story: str, rng: random.Random, first: bool = True) -> str:
        """Draw a request whose answer could be `story`."""
        topics = self.finder.draw(story, rng, 2 if rng.random() < 0.15 else 1)
        if not topics or rng.random() < 0.04:
            return rng.choice(OPEN_REQUESTS)
        if rng.random() < 0.07:
            return self._spell(topics[0].bare, rng, rng.choice(BARE_REQUESTS))
        form = rng.choice(REQUESTS if first or rng.random() < 0.4 else FOLLOW_UPS)
        return self._spell(" and ".join(topic.phrase for topic in topics), rng, form)

    @staticmethod
    def _spell(about: str, rng: random.Random, form: str) -> str:
        return form.format(about.lower() if rng.random() < 0.08 else about)

    def small_talk(self, rng: random.Random) -> tuple[str, list[int]]:
        """A remark, and the ids of its answer."""
        asked, answers = rng.choice(SMALL_TALK)
        return rng.choice(asked), self.encode(rng.choice(answers))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without control tokens."""
        return self.tokenizer(text, add_special_tokens=False).input_ids


def pack(
    documents: list[Document], batch_tokens: int, pad: int, rng: random.Random
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Whole documents side by side in rows of few different lengths, the rows in shuffled batches.

    Returns (ids, labels) pairs `[rows, length]` of `batch_tokens`; what is not learned is IGNORED.
    """
    batches = []
    shortest = 0
    for length in ROW_LENGTHS:
        chosen = [document for document in documents if shortest < len(document.ids) <= length]
        rng.shuffle(chosen)
        rows = _fill_rows(chosen, length)
        rng.shuffle(rows)
        size = batch_tokens // length
        batches += [stack(rows[at : at + size], pad, length) for at in range(0, len(rows) - size + 1, size)]
        shortest = length
    rng.shuffle(batches)
    return batches


def _fill_rows(documents: list[Document], length: int) -> list[Document]:
    """Documents joined to rows of at most `length`: the longer first, each where there is room first."""
    full: list[Document] = []
    rows: list[Document] = []
    for document in sorted(documents, key=lambda each: -(len(each.ids) // 64)):
        at = next((at for at, row in enumerate(rows) if len(row.ids) + len(document.ids) <= length), None)
        row = document if at is None else rows.pop(at).followed_by(document)
        (full if len(row.ids) > length - SMALLEST else rows).append(row)
    return full + rows


def stack(
    documents: list[Document], pad: int, length: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """One document a row, padded to `length` or to the longest: ids and labels `[rows, length]`."""
    length = length or max(len(document.ids) for document in documents)
    ids = torch.full((len(documents), length), pad)
    labels = torch.full((len(documents), length), IGNORED)
    for at, document in enumerate(documents):
        row = torch.tensor(document.ids)
        ids[at, : len(row)] = row
        labels[at, : len(row)] = torch.where(torch.tensor(document.learned), row, IGNORED)
    return ids, labels
