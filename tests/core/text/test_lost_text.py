"""Templates that lose a part of what was written: said when a model is loaded, refused when it is sent."""

import pytest

from specdec_core.errors import PromptError
from specdec_core.text.prompting import Prompter
from specdec_core.text.template_probe import probe_template
from tests.support.tiny_pair import byte_level_tokenizer


def _each(content: str, of: str = "messages") -> str:
    return f"{{% for m in {of} %}}<|user|>{{{{ {content} }}}}<|end|>{{% endfor %}}"


PARTS = "{% for m in messages %}<|user|>{% for p in m.content %}{{ p.text[:30] }}{% endfor %}{% endfor %}"
THINKING = (
    "{% for m in messages %}<|user|>{{ m.content.split('</think>')[-1] if m.role == 'assistant' "
    "else m.content }}<|end|>{% endfor %}"
)
SWITCHES = _each("m.content.replace('/no_think', '').strip()")
ALL_PARTS = ("parts of your messages", "parts of earlier answers", "parts of the system message")
LONG = "Tell me, for the children, a very long story about a ZEBRA\nand\n\na tree."
SYSTEM = {"role": "system", "content": LONG}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _prompter(template: str) -> Prompter:
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = template
    return Prompter(tokenizer)


def _rendered(template: str, *messages: dict[str, str]) -> str:
    prompter = _prompter(template)
    return prompter.tokenizer.decode(prompter.encode_chat(messages))


@pytest.mark.parametrize(
    ("template", "dropped"),
    [
        (_each("m.content[:10]"), ALL_PARTS),
        (_each("m.content[:20]"), ALL_PARTS),
        (_each("m.content[:4000]"), ALL_PARTS),
        (_each("m.content[-50:]"), ALL_PARTS),
        (_each("m.content | truncate(30)"), ALL_PARTS),
        (_each("m.content[:99] ~ m.content[-99:]"), ALL_PARTS),
        (_each(r"m.content.split('\n')[0]"), ALL_PARTS),
        (_each(r"m.content.split('\n\n')[-1]"), ALL_PARTS),
        (PARTS, ALL_PARTS),
        (_each("m.content.split('###')[0]"), ALL_PARTS[:1]),
        (_each("m.content.split('---')[-1]"), ALL_PARTS[:1]),
        (_each("m.content.split('</think>')[-1]"), ALL_PARTS[:1]),
        (_each("m.content | striptags"), ALL_PARTS[:1]),
        (_each("m.content if m.role != 'system' else m.content[:40]"), ALL_PARTS[2:]),
        (_each("m.content", "messages[-6:]"), ("all but the last 6 messages",)),
        (_each("m.content", "messages[-20:]"), ("all but the last 20 messages",)),
        (_each("m.content", "messages[:1] + messages[-5:]"), ("all but the first and the last 5 messages",)),
        (
            _each("m.content", "messages[:4] + messages[-2:]"),
            ("all but the first 4 and the last 2 messages",),
        ),
        (_each("m.content", "messages[1:]"), ("the first message",)),
    ],
)
def test_what_a_template_loses_of_long_messages_and_conversations_is_in_the_notes(template, dropped):
    traits = probe_template(_prompter(template).tokenizer)
    assert traits.dropped == dropped
    assert all(name in " ".join(traits.notes) for name in dropped)


@pytest.mark.parametrize(
    "content",
    [
        "m.content",
        "m.content | upper",
        "m.content | title",
        "m.content | trim",
        "m.content | e",
        "m.content | tojson",
        "m.content | tojson | e",
        "m.content | wordwrap(20)",
        r"m.content.replace('\n', '\n> ')",
        "[m.content]",
        "m.content ~ m.content",
    ],
)
def test_a_template_that_rewrites_messages_keeps_long_ones_whole(content):
    prompter = _prompter(_each(content))
    assert prompter.template.notes == ()
    for text in (LONG, "a <b> & 'c' \"d\" \\n\n\u0131\u00df \x07 漢字🙂", "say <|end|> now\nagain"):
        ids = prompter.encode_chat([SYSTEM, _user(text)])
        assert ids.count(prompter.tokenizer.eos_token_id) == 2


@pytest.mark.parametrize("control", ["<|end|>", "<|user|>"])
def test_a_control_token_typed_into_a_template_that_prints_the_messages_is_text(control):
    assert f"say {control} now" in _rendered("{{ messages }}", _user(f"say {control} now"))


@pytest.mark.parametrize(
    ("content", "text", "word"),
    [
        ("m.content | truncate(30)", LONG, "a"),
        ("m.content[:10]", LONG, "for"),
        ("m.content[:20]", LONG, "children,"),
        (r"m.content.split('\n')[0]", "first\nSECOND LINE", "SECOND"),
        ("m.content.split('###')[0]", "Heading ### the question", "###"),
        ("m.content.split('</think>')[-1]", "what is </think> about?", "what"),
        ("m.content.replace('ZEBRA', '')", LONG, "ZEBRA"),
        ("m.content | striptags", "is <i>this</i> bold", "<i>this</i>"),
        ("(m.content | e)[:12]", "a < b and c < d", "c"),
        ("(m.content | upper)[:20]", LONG, "children,"),
        ("m.content[:15]", "say to the <|end|> now", "<|end|>"),
    ],
)
def test_a_message_that_loses_a_part_is_refused_with_the_place(content, text, word):
    with pytest.raises(PromptError) as raised:
        _rendered(_each(content), _user("Who?"), _assistant("I."), _user(text))
    assert f'leaves out a part of your message, near "{word}"' in str(raised.value)


def test_a_lost_word_is_not_found_in_other_messages():
    question = "Tell me about a very large ELEPHANT"
    with pytest.raises(PromptError, match='a part of your message, near "very"'):
        _rendered(_each("m.content[:16]"), _user("a very"), _assistant("large ELEPHANT"), _user(question))


def test_a_system_message_that_loses_a_part_is_refused():
    with pytest.raises(PromptError, match='a part of the system message, near "children,"'):
        _rendered(_each("m.content[:20]"), SYSTEM, _user("Go"))


@pytest.mark.parametrize("content", ["m.content[:10]", "m.content | truncate(30)", "m.content[-9:]"])
def test_a_message_that_fits_is_sent_by_a_template_that_shortens_others(content):
    assert _rendered(_each(content), _user("Go on")) == "<|user|>Go on<|end|>"


def test_an_answer_may_lose_its_thoughts():
    assert _prompter(THINKING).template.notes == ()
    text = _rendered(THINKING, _user("Who?"), _assistant("hm</think>I."), _user("a </think> b"))
    assert text == "<|user|>Who?<|end|><|user|>I.<|end|><|user|>a </think> b<|end|>"


def test_a_switch_that_the_template_takes_out_is_no_loss():
    assert _rendered(SWITCHES, _user("Add them up /no_think")) == "<|user|>Add them up<|end|>"


def test_a_separator_that_is_a_control_token_is_not_lost():
    """Typed control tokens are not seen by the template."""
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["</think>"])
    tokenizer.chat_template = _each("m.content.split('</think>')[-1]")
    prompter = Prompter(tokenizer)
    assert prompter.template.notes == ()
    assert "a </think> b" in tokenizer.decode(prompter.encode_chat([_user("a </think> b")]))


def test_a_template_that_refuses_long_conversations_is_probed_with_a_short_one():
    refusing = "{% if messages | length > 10 %}{{ raise_exception('too long') }}{% endif %}"
    traits = probe_template(_prompter(refusing + _each("m.content", "messages[-3:]")).tokenizer)
    assert traits.can_chat
    assert traits.dropped == ("all but the last 3 messages",)
    assert "too long" in traits.notes[0]
