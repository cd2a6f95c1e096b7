"""Topics of stories: the words that a person could have used to ask for one.

Nouns and names are found by counting, without a dictionary or a tagger. Knows nothing of tokens or models.
"""

import math
import random
import re
from collections import Counter
from dataclasses import dataclass

WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|[.,!?;:\"]")
DETERMINERS = {"a", "an", "the", "his", "her", "my", "their", "your", "our", "its", "this", "that", "some"}
PEOPLE = """
    girl boy man woman dog cat bear bird rabbit bunny mouse fish frog lady king queen
""".split()  # noqa: SIM905
# Where one of these follows, a noun may end: "the fox was", but not "the red fox".
FUNCTION_WORDS = """
    and was were is are had has in on at to for from with of that who but so because could can did would
    said came went ran saw when while as under by into near up down out . , ! ? ; :
""".split()  # noqa: SIM905
# Nouns by the count, but nobody asks for a story about them.
DULL = """
    day days time times end way thing things lot rest moment one other others top side front back bit
    while name idea ideas minute minutes hour hours place places part next same first last middle reason
    word words piece pieces face eyes hands hand head feet arms fun turn problem everyone everything
    nothing something mom dad mommy daddy mama mum mummy new right left best room morning afternoon night
    week matter sound voice noise hard two three little big sometimes sudden dear grown fastest lives
    hurry moral story lesson ground air size corner edge god english spanish sunday tuesday wednesday mrs
""".split()  # noqa: SIM905


@dataclass(frozen=True)
class Topic:
    """A thing or a person in a story, and how often the story speaks of it for its length and rarity."""

    phrase: str  # as it stands after "about": "a fox", "rain", "Lily", "a girl named Lily"
    bare: str  # the word alone: "fox", "Lily"
    weight: float


class TopicFinder:
    """Counts how words are used in `stories`, then names the topics of any story."""

    def __init__(self, stories: list[str]):
        total, lower, mid_upper = Counter(), Counter(), Counter()
        after, closed, after_a, after_the = Counter(), Counter(), Counter(), Counter()
        in_stories = Counter()
        for story in stories:
            words = WORD.findall(story)
            in_stories.update({word.lower() for word in words})
            padded = [".", ".", *words, "."]
            for two_before, before, word, behind in zip(padded, padded[1:], words, padded[3:], strict=False):
                small = word.lower()
                total[small] += 1
                if word == small:
                    lower[small] += 1
                elif before.isalpha():
                    mid_upper[word] += 1
                if before.lower() in DETERMINERS:
                    after[small] += 1
                    closed[small] += behind in FUNCTION_WORDS
                    after_the[small] += before.lower() == "the"
                article = {"a", "an"}
                described = before.islower() and before not in [*DETERMINERS, *FUNCTION_WORDS]
                after_a[small] += before.lower() in article or (described and two_before.lower() in article)
        self.stories = len(stories)
        self.in_stories = in_stories
        self.nouns = {
            word: self._phrase(word, after[word], after_a[word], after_the[word])
            for word in total
            if after[word] >= 3
            and closed[word] >= 0.6 * after[word]
            and after[word] >= 0.25 * total[word]
            and len(word) > 2
            and "'" not in word
            and word not in DULL
        }
        self.names = {
            word
            for word, count in mid_upper.items()
            if count >= 3 and len(word) > 2 and "'" not in word
            and lower[word.lower()] < 0.2 * count and word.lower() not in DULL + FUNCTION_WORDS
        }  # fmt: skip

    @staticmethod
    def _phrase(word: str, after: int, after_a: int, after_the: int) -> str:
        if after_a >= 0.12 * after:
            vowel = word[0] in "aeiou" and not word.startswith(("uni", "use", "eu"))
            return f"an {word}" if vowel else f"a {word}"
        return f"the {word}" if after_the >= 0.8 * after and not word.endswith("s") else word

    def topics(self, story: str) -> list[Topic]:
        """The topics of `story`, heaviest first; a thing counts if named twice, or in the first sentences."""
        words = WORD.findall(story)
        counts = Counter(word.lower() for word in words)
        capitalised = Counter(words)
        opening = {word.lower() for word in words[:40]}
        found = []
        for word, count in counts.items():
            if word not in self.nouns or (count < 2 and word not in opening):
                continue
            rarity = math.log(self.stories / max(1, self.in_stories[word]))
            found.append(Topic(self.nouns[word], word, count * rarity * (1.5 if word in opening else 1.0)))
        for name in self.names & capitalised.keys():
            if capitalised[name] >= 3 and name.lower() in opening:
                kind = re.search(rf"\b(\w+) (?:named|called) {name}\b", story)
                phrase = f"a {kind[1]} named {name}" if kind and kind[1] in PEOPLE else name
                found.append(Topic(phrase, name, 2.0 * capitalised[name]))
        return sorted(found, key=lambda topic: -topic.weight)

    def draw(self, story: str, rng: random.Random, count: int) -> list[Topic]:
        """Up to `count` different topics of `story`, drawn by weight from its heaviest few."""
        left = self.topics(story)[:5]
        drawn = []
        while left and len(drawn) < count:
            topic = rng.choices(left, [topic.weight for topic in left])[0]
            drawn.append(topic)
            left = [other for other in left if other.bare[:4] != topic.bare[:4]]
        return drawn
