"""Sets of prompts: stories, random letters, repeated passages, or the lines of a file.

Messages go through the chat template; a str is a raw prompt. Knows nothing of lanes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from ..engine import Engine
from ..errors import SettingsError
from ..presets import get_preset
from ..settings import Settings
from ..text.prompting import Message, Prompt

# fmt: off
TOPICS = [
    "dog", "cat", "boat", "bird", "tree", "ball", "fish", "bear", "car", "frog", "hat", "cake", "flower",
    "moon", "king", "rabbit", "box", "train", "doll", "garden", "lion", "bee", "truck", "horse", "duck",
    "kite", "mouse", "shoe", "apple", "toy", "spoon", "river", "star", "pig", "bunny", "park", "castle",
    "robot", "butterfly", "turtle", "bike", "book", "leaf", "snowman", "cow", "dragon", "pond", "egg", "rain",
]
# fmt: on
_PASSAGES = [
    "Once upon a time, there was a little girl named Lily. She had a red ball. One day, Lily took her red "
    "ball to the park. She saw a boy named Tim. Tim said, 'Can I play with you?' Lily said, 'Yes!' ",
    "Tom and Sam are friends. They like to play in the garden. Tom has a big truck. Sam has a small car. "
    "They make a road with sand. They push the truck and the car on the road. They are happy. ",
    "The little bird sat in the tree. The bird was sad because it could not fly. A kind dog came by and "
    "said, 'Do not be sad, little bird. I will help you.' The bird smiled. ",
    "Anna wants to bake a cake with her mom. They put flour, milk and eggs in a bowl. Anna stirs and "
    "stirs. Mom puts the cake in the oven. The cake smells good. Anna says, 'Thank you, Mom!' ",
    "There was an old boat by the lake. Every day, a duck sat on the old boat and looked at the water. "
    "One day, it rained and the boat floated away with the duck on it. ",
]


def has_template(engine: Engine) -> bool:
    """Return True for a model with a chat template."""
    return bool(engine.pair.tokenizer.chat_template)


def user_turn(text: str) -> list[Message]:
    """Return a conversation of one message, or its next turn."""
    return [{"role": "user", "content": text}]


def as_prompt(engine: Engine, text: str) -> Prompt:
    """Return a message to the model, a raw prompt if it has no chat template."""
    return user_turn(text) if has_template(engine) else text


def story_prompt(engine: Engine, n: int) -> Prompt:
    """Return the n-th request for a story; n counts modulo the topics."""
    return as_prompt(engine, _topic_text(n))


def retold(engine: Engine, prompt: str, max_new_tokens: int) -> str:
    """Return a raw prompt, the target's greedy answer to it, and the prompt again, as one raw prompt.

    A target that sees only the last token repeats the answer; others may not.
    """
    settings = Settings(max_new_tokens=max_new_tokens, temperature=0, gamma=0)
    return f"{prompt} {engine.generate(prompt, settings).text.strip()} {prompt}"


def prompt_set(text: str, preset: str | None, chats: bool) -> Sequence[Prompt]:
    """Return the prompts of the set `text`: stories, random, repeat, or a file with one prompt a line.

    Stories begin with the preset's examples. Without a chat template (`chats` False) every prompt is raw.
    Raises SettingsError for a file that cannot be read or is empty.
    """
    if text == "random":
        return [_random_letters(n) for n in range(len(TOPICS))]
    if text == "repeat":
        # The passage twice and its first sentence: n-gram drafting gains if the target repeats the passage.
        return [2 * passage + passage[: passage.index(". ") + 1] for passage in _PASSAGES]
    if text == "stories":
        examples = list(get_preset(preset).examples) if preset else []
        if not examples or preset == "stories":
            examples += [_topic_text(n) for n in range(len(TOPICS))]
    else:
        examples = _lines(Path(text))
    return [user_turn(example) for example in examples] if chats else examples


def _topic_text(n: int) -> str:
    return f"Tell me a story about a {TOPICS[n % len(TOPICS)]}."


def _random_letters(n: int) -> str:
    draw = random.Random(n)
    return " ".join("".join(draw.choices("bcdfghjklmnpqrstvwxz", k=draw.randint(2, 8))) for _ in range(16))


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--text is stories, random, repeat or a file of prompts; {path} cannot be read: {error}"
        ) from error
    if not any(lines):
        raise SettingsError(f"{path} holds no prompt. Write one a line.")
    return [line for line in lines if line]
