"""1,600 made-up inputs: prompts, settings, chat templates and folders work or raise documented errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings as examples, strategies as st

import specdec_core as sd
from specdec_core.settings import SETTINGS
from specdec_core.text.prompting import Prompter
from tests.support.tiny_pair import CONTROL, byte_level_tokenizer

pytestmark = pytest.mark.slow


TIMES = 1
"""So many times the examples are tried: more for a long run, after a change to what is fuzzed."""


def count(number: int):
    """So many examples, the same ones each time, without a limit on the time of one."""
    return examples(
        max_examples=TIMES * number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def attempt(call: Callable[[], Any]) -> tuple[Any, sd.SpecDecError | None]:
    """Return the result of a call, or the documented error that it raises; others are passed on."""
    try:
        return call(), None
    except sd.SpecDecError as error:
        return None, error


# --- messages and raw prompts -------------------------------------------------------------------

PIECES = st.sampled_from(
    [*CONTROL, "<think>", "</s>", "{{ x }}", "{% raw %}", "\ue000", "🦊", "\x00", "\r\n", "　"]
)
TEXT = st.lists(PIECES | st.text(st.characters(), max_size=12), max_size=8).map("".join)
JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=3)
    | st.lists(TEXT, max_size=2)
)
ROLES = st.sampled_from(["user", "assistant", "system"])
MESSAGE = st.fixed_dictionaries({"role": ROLES, "content": TEXT})
ODD_MESSAGE = (
    st.dictionaries(st.sampled_from(["role", "content", "name"]) | TEXT, TEXT | JUNK, max_size=3) | JUNK
)
CONVERSATION = st.lists(MESSAGE, max_size=5) | st.lists(MESSAGE | ODD_MESSAGE, max_size=4)


@count(800)
@given(TEXT | CONVERSATION | JUNK, st.sampled_from([0, 2, "auto"]))
def test_any_prompt_is_answered_or_refused_by_a_prompt_error(engine, prompt, gamma):
    chosen = sd.Settings(max_new_tokens=3, gamma=gamma, seed=1)
    result, error = attempt(lambda: engine.generate(prompt, chosen))
    if error is None:
        assert 0 < result.stats.new_tokens <= 3
    else:
        assert isinstance(error, sd.PromptError)


# --- settings -----------------------------------------------------------------------------------

NUMBERS = st.integers() | st.floats() | st.integers(10**4298, 10**4301) | st.integers(-3, 20)
WORDS = st.sampled_from(["auto", "model", "ngram", "both", "rejection", "coupled", "", "0.5"])
VALUES = NUMBERS | WORDS | TEXT | JUNK
PLAUSIBLE = {
    "temperature": st.floats(0, 100),
    "top_k": st.integers(0, 500),
    "top_p": st.floats(0, 1),
    "min_p": st.floats(0, 1),
    "seed": st.none() | st.integers(-(2**63), 2**64 - 1),
    "gamma": st.integers(0, 17) | st.just("auto"),
    "drafting": WORDS,
    "verification": WORDS,
    "stop": st.lists(TEXT, max_size=3),
}


@count(600)
@given(
    st.fixed_dictionaries({}, optional=PLAUSIBLE)
    | st.dictionaries(st.sampled_from([*SETTINGS]), VALUES, max_size=4)
)
def test_any_settings_are_used_or_refused_by_name(engine, values):
    chosen, error = attempt(lambda: sd.Settings(**({"max_new_tokens": 3} | values)))
    if error is not None:
        assert isinstance(error, sd.SettingsError)
        assert any(name in str(error) for name in values)
    elif chosen.max_new_tokens <= 32:
        assert engine.generate("Once upon a time", chosen).stats.new_tokens <= chosen.max_new_tokens


# --- chat templates -----------------------------------------------------------------------------

EXPRESSIONS = [
    "message.content",
    "message['role']",
    "messages",
    "messages | list",
    "messages[-1:]",
    "messages | tojson",
    "messages[0]['name'] + 'x'",
    "messages.pop()",
    "bos_token",
    "tools | length",
    "documents[0].title",
    "loop.index0",
    "'a' + 1",
    "1 // 0",
    "range(10 ** 9) | list",
    "'a' * 10 ** 11",
    "raise_exception('no')",
    "message.content[9]",
    "message.content.split('x')[3]",
    "message.content.upper()",
    "message.update({'content': 3})",
    "message.__class__.__mro__",
    "strftime_now('%Y')",
    "namespace(a=1).a",
    "undefined.deeper",
    "cycler()",
    "add_generation_prompt",
    "''.join(messages)",
]
STATEMENTS = [
    "{% for message in messages %}",
    "{% endfor %}",
    "{% if tools %}",
    "{% endif %}",
    "{% else %}",
    "{% break %}",
    "{% set messages = messages[1:] %}",
    "{% set content = message.content %}",
    "{% for part in message.content %}{{ part.text }}{% endfor %}",
    "{% include 'x' %}",
    "{% generation %}",
    "{# comment #}",
    "{%",
    "}}",
]
PARTS = st.sampled_from(["{{ " + expression + " }}" for expression in EXPRESSIONS] + STATEMENTS) | TEXT
LOOP = st.lists(PARTS, max_size=4).map(
    lambda parts: "{% for message in messages %}" + "".join(parts) + "{% endfor %}"
)
TEMPLATES = LOOP | st.lists(PARTS, max_size=6).map("".join)
NAMED = st.dictionaries(st.sampled_from(["default", "tool_use", "rag", ""]), TEMPLATES, max_size=3)
CHAT = [
    {"role": "user", "content": "What is a zebra?"},
    {"role": "assistant", "content": "An animal."},
    {"role": "user", "content": "And <|end|> this?"},
]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@count(170)
@given(TEMPLATES | NAMED)
def test_any_chat_template_renders_or_raises_a_prompt_error(tokenizer, template):
    tokenizer.chat_template = template
    ids, error = attempt(lambda: Prompter(tokenizer).encode(CHAT))
    if error is None:
        assert ids
        assert all(isinstance(token_id, int) for token_id in ids)
    else:
        assert isinstance(error, sd.PromptError)


# --- model folders ------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2000) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)
FILES = st.sampled_from(
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of the values within parsed JSON, whole collections included; of long lists the beginning."""
    if isinstance(value, dict):
        return [path, *(leaf for key in [*value][:40] for leaf in leaves(value[key], (*path, key)))]
    if isinstance(value, list):
        return [path, *(leaf for at in range(min(len(value), 3)) for leaf in leaves(value[at], (*path, at)))]
    return [path]


def damage(path: Path, data: st.DataObject) -> None:
    """Damage one file of a folder: its bytes, or one value in its JSON."""
    kind = data.draw(st.sampled_from(["value", "value", "value", "removed", "cut", "bytes", "missing"]))
    if kind == "missing":
        path.unlink()
    elif kind in ("cut", "bytes") or path.suffix != ".json":
        content = path.read_bytes()
        at = data.draw(st.integers(0, len(content) - 1))
        path.write_bytes(
            content[:at] + (b"" if kind == "cut" else data.draw(st.binary(max_size=9)) + content[at + 9 :])
        )
    else:
        parsed = json.loads(path.read_text(encoding="utf-8"))
        *parents, last = data.draw(st.sampled_from(leaves(parsed)[1:]))
        inside = parsed
        for key in parents:
            inside = inside[key]
        if kind == "removed":
            del inside[last]
        else:
            inside[last] = data.draw(JSON)
        path.write_text(json.dumps(parsed), encoding="utf-8")


def first_tokens(target: str, drafter: str) -> int:
    """Load a pair and return the number of tokens of a short answer."""
    engine = sd.Engine.load(target=target, drafter=drafter, device="cpu")
    return engine.generate("Once", sd.Settings(max_new_tokens=2, seed=1)).stats.new_tokens


@count(50)
@given(st.data())
def test_any_damaged_folder_loads_or_raises_a_documented_error(pair_folders, data):
    target, drafter = pair_folders
    with TemporaryDirectory() as root:
        damaged = shutil.copytree(target, Path(root, "model"))
        for name in data.draw(st.lists(FILES, min_size=1, max_size=2, unique=True)):
            damage(damaged / name, data)
        tokens, error = attempt(lambda: first_tokens(str(damaged), drafter))
    assert tokens or str(error)
