"""Chat templates as people bring them: content parts, messages left out, anything that one can raise."""

import pytest

from specdec_core.errors import PromptError
from specdec_core.text.prompting import Prompter
from specdec_core.text.template_probe import probe_template
from tests.support.tiny_pair import byte_level_tokenizer

PLAIN = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
PARTS = (
    "{% for m in messages %}<|user|>{% for p in m.content %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}<|end|>{% endfor %}"
)
ONLY_PARTS = "{% for m in messages %}<|user|>{{ m.content[0].text + '' }}{% endfor %}"
USER_PARTS = (
    "{% for m in messages %}<|user|>{% if m.role == 'user' %}{{ m.content[0].text }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
SYSTEM_PARTS = (
    "{% for m in messages %}<|user|>{% if m.role == 'system' %}{{ m.content[0].text }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
FIRST_ONLY = "{% for m in messages %}{{ m.content }}{% break %}{% endfor %}"
CONVERSATION = [
    {"role": "user", "content": "Who is Zoë?"},
    {"role": "assistant", "content": "Once upon a time"},
    {"role": "user", "content": "  And then? "},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def _tokenizer(template):
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def _rendered(template, messages, sampled=None) -> str:
    tokenizer = _tokenizer(template)
    return tokenizer.decode(Prompter(tokenizer).encode_chat(messages, sampled))


@pytest.mark.parametrize("template", [PARTS, ONLY_PARTS, USER_PARTS, SYSTEM_PARTS, PLAIN])
def test_every_message_arrives_whatever_form_of_content_the_template_takes(template):
    text = _rendered(template, [SYSTEM, *CONVERSATION])
    assert all(message["content"].strip() in text for message in [SYSTEM, *CONVERSATION])
    assert "'text'" not in text


def test_parts_only_where_text_is_lost():
    both = "{% for m in messages %}{{ m.content if m.content is string else 'PARTS' }}{% endfor %}"
    assert probe_template(_tokenizer(both)).roles_in_parts == frozenset()


def test_a_typed_control_token_stays_text_in_parts():
    tokenizer = _tokenizer(PARTS)
    ids = Prompter(tokenizer).encode_chat([{"role": "user", "content": "say <|end|> now"}])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert "say <|end|> now" in tokenizer.decode(ids)


def test_an_earlier_answer_keeps_its_sampled_ids_in_parts():
    tokenizer = _tokenizer(
        PARTS.replace("<|user|>", "<|{{ m.role }}|>")
        + "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    sampled = [token for piece in ("On", "ce", " upon", " a t", "ime") for token in tokenizer.encode(piece)]
    ids = Prompter(tokenizer).encode_chat(CONVERSATION, {"Once upon a time": sampled})
    at = next(at for at in range(len(ids)) if ids[at : at + len(sampled)] == sampled)
    assert tokenizer.decode(ids[:at]).endswith("<|assistant|>")


def test_a_typed_control_token_survives_a_template_that_changes_the_case():
    assert "SAY <|end|> NOW" in _rendered(
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        [{"role": "user", "content": "say <|end|> now"}],
    )


@pytest.mark.parametrize("template", [PLAIN, PARTS, "{{ strftime_now('%Y') }}" + PLAIN])
def test_an_ordinary_template_needs_no_note(template):
    traits = probe_template(_tokenizer(template))
    assert traits.notes == ()
    assert traits.takes_system_message


@pytest.mark.parametrize(
    "rewritten", ["m.content | trim", "m.content | upper", "' ' ~ m.content | replace('e', 'e')"]
)
def test_a_template_that_rewrites_messages_keeps_them(rewritten):
    traits = probe_template(_tokenizer(f"{{% for m in messages %}}{{{{ {rewritten} }}}}{{% endfor %}}"))
    assert (traits.dropped, traits.can_chat) == ((), True)


@pytest.mark.parametrize(
    ("template", "dropped"),
    [
        ("{{ messages[-1].content }}", ("the first message", "earlier answers", "earlier messages")),
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", ("earlier answers",)),
        ("{% for m in messages[-3:] %}{{ m.content }}{% endfor %}", ("all but the last 3 messages",)),
        (FIRST_ONLY, ("earlier answers", "earlier messages", "the message to answer")),
    ],
)
def test_what_a_template_leaves_out_is_in_the_notes(template, dropped):
    traits = probe_template(_tokenizer(template))
    assert traits.dropped == dropped
    assert all(name in " ".join(traits.notes) for name in dropped)


@pytest.mark.parametrize(
    "template", ["{# nothing #}", "Go:", "{% for m in messages[1:] %}{{ m.content }}{% endfor %}Go:"]
)
def test_a_template_without_the_question_is_said_and_refused_but_raw_prompts_work(template):
    tokenizer = _tokenizer(template)
    prompter = Prompter(tokenizer)
    assert "cannot hold a conversation" in " ".join(prompter.template.notes)
    with pytest.raises(PromptError, match="leaves out your message"):
        prompter.encode_chat([{"role": "user", "content": "Go"}])
    assert prompter.encode_raw("Once") == tokenizer.encode("Once")


def test_a_later_question_that_is_left_out_is_refused():
    prompter = Prompter(_tokenizer(FIRST_ONLY))
    assert prompter.encode_chat(CONVERSATION[:1])
    with pytest.raises(PromptError, match="leaves out your message"):
        prompter.encode_chat(CONVERSATION)


def test_a_system_message_that_is_left_out_is_refused():
    template = PLAIN.replace("messages", "messages if m.role != 'system'")
    assert not probe_template(_tokenizer(template)).takes_system_message
    with pytest.raises(PromptError, match="leaves out the system message"):
        Prompter(_tokenizer(template)).encode_chat([SYSTEM, *CONVERSATION])


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if tools|length > 0 %}T{% endif %}" + PLAIN, "NoneType"),
        ("{{ 'a' + documents }}", "can only concatenate str"),
        ("{{ messages[0].name + 'x' }}", "has no attribute 'name'"),
        ("{% for m in messages %}", "Unexpected end of template"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ messages[0].content | int(base=99) + {}['x'] }}", "UndefinedError|ValueError"),
        (
            "{{ raise_exception('Only <|user|> turns, please') }}",
            "Only <|user|> turns, please".replace("|", r"\|"),
        ),
        ("{{ raise_exception('') }}", "does not say why"),
        ({"rag": PLAIN, "tool_use": PLAIN}, r"rag, tool_use"),
        (None, "no chat template"),
        ("", "no chat template"),
        ({}, "no chat template"),
        ("{{ '\\ud800' }}" + PLAIN, r"lone surrogate U\+D800"),
    ],
)
def test_whatever_a_template_raises_is_a_prompt_error_with_its_words_and_a_note(template, words):
    prompter = Prompter(_tokenizer(template))
    with pytest.raises(PromptError, match=words) as raised:
        prompter.encode_chat(CONVERSATION[:1])
    assert prompter.template.notes == (str(raised.value),)
    assert not prompter.template.can_chat


def test_a_prompt_far_longer_than_the_messages_is_refused():
    with pytest.raises(PromptError, match="writes 20,000,000 characters for messages of 11"):
        _rendered("{{ 'x' * 20_000_000 }}", CONVERSATION[:1])


@pytest.mark.parametrize("template", ["{% for m in messages %}", "{{ range(10 ** 9) }}", "{{ 1 // 0 }}"])
def test_the_sentence_of_what_a_template_raises_ends_once(template):
    with pytest.raises(PromptError, match=r"[^.]\. Give a raw prompt"):
        _rendered(template, CONVERSATION[:1])


def test_the_default_one_of_several_named_templates_is_used():
    assert (
        _rendered({"default": PLAIN, "tool_use": "{{ 1 // 0 }}"}, CONVERSATION[:1])
        == "<|user|>Who is Zoë?<|end|>"
    )


@pytest.mark.parametrize(
    ("condition", "works"),
    [
        ("messages[0].role != 'system'", [SYSTEM, *CONVERSATION]),
        ("messages | length > 1", CONVERSATION[:1]),
    ],
)
def test_a_template_that_refuses_some_conversations_says_so_before_and_takes_the_others(condition, works):
    template = f"{{% if {condition} %}}{{{{ raise_exception('not so') }}}}{{% endif %}}" + PLAIN
    traits = probe_template(_tokenizer(template))
    assert traits.can_chat
    assert "not so" in " ".join(traits.notes)
    assert works[-1]["content"] in _rendered(template, works)


def test_a_conversation_that_begins_with_an_answer_is_rendered():
    """The conversation before that answer, which has no message, is never rendered."""
    messages = CONVERSATION[1:]
    wanted = "<|assistant|>Once upon a time<|end|><|user|>  And then? <|end|>"
    assert _rendered(PLAIN, messages, {"Once upon a time": [5, 6]}) == wanted


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (PLAIN, "<|end|>"),
        (PARTS, "<|end|>"),
        (PLAIN.replace("<|end|>", "\n<|turn|>\n"), "<|turn|>"),
        (PLAIN.replace("<|end|>", "\n"), None),
        (PLAIN.replace("<|end|>", " the"), None),
        ("<|begin|>" + PLAIN.replace("m.content", "'?'"), None),
    ],
)
def test_the_added_token_right_after_an_answer_ends_turns_flagged_special_or_not(template, end):
    tokenizer = _tokenizer(template)
    tokenizer.add_tokens(["<|turn|>", "\n\n", "\n"])
    wanted = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert probe_template(tokenizer).turn_end == wanted
