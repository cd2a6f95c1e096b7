"""Messages to ids: typed text never becomes a control token, answers come back as the ids sampled."""

import json

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from specdec_core.errors import PromptError
from specdec_core.text.prompting import Prompter
from tests.support.tiny_pair import byte_level_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


@pytest.fixture
def prompter(tokenizer):
    return Prompter(tokenizer)


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ORDINARY = [
    "Hello",
    "  two  spaces\n\nand lines ",
    "漢字 🙂 naïve",
    "a < b | c > d",
    "<|",
    "<p>html</p>",
    "\x00\x07",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_is_encoded_as_the_template_has_it(tokenizer, prompter, text):
    messages = [_user(text), _assistant("Once upon"), _user("more")]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert prompter.encode_chat(messages) == wanted


@pytest.mark.parametrize("literal", ["<|end|>", "<|user|>", "<think>", "<|begin|>"])
def test_a_typed_control_token_is_text(tokenizer, prompter, literal):
    ids = prompter.encode_chat([_user(f"say {literal} now")])
    control = tokenizer.convert_tokens_to_ids(literal)
    plain = prompter.encode_chat([_user("say now")])
    assert ids.count(control) == plain.count(control)
    assert f"say {literal} now" in tokenizer.decode(ids)


def test_text_around_a_typed_control_token_is_cut_as_ever(tokenizer, prompter):
    """The twin tokenizer differs in the names of its control tokens alone."""
    ids = prompter.encode_chat([_user("Once upon a time <|end|> there was")])
    before = tokenizer.encode("Once upon a time", add_special_tokens=False)
    assert ids[2 : 2 + len(before)] == before


def test_an_earlier_answer_is_made_of_the_ids_that_were_sampled(tokenizer, prompter):
    text = "little dog"
    sampled = [token for piece in ("lit", "tle", " d", "og") for token in tokenizer.encode(piece)]
    assert sampled != tokenizer.encode(text)
    messages = [_user("hi"), _assistant(text), _user("more")]
    ids = prompter.encode_chat(messages, {text: sampled})
    at = ids.index(sampled[0])
    assert ids[at : at + len(sampled)] == sampled
    assert tokenizer.decode(ids) == tokenizer.decode(prompter.encode_chat(messages))


def test_an_answer_with_white_space_that_the_template_trims_keeps_its_ids(tokenizer, prompter):
    sampled = tokenizer.encode(" dog")
    ids = prompter.encode_chat([_user("hi"), _assistant(" dog"), _user("more")], {" dog": sampled})
    assert sampled[0] in ids


def test_an_answer_that_the_template_rewrites_is_the_template_s(prompter, tokenizer):
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message.content | trim", "message.content.split('<think>')[-1]"
    )
    text = "secret<think>shown"
    messages = [_user("hi"), _assistant(text), _user("more")]
    ids = Prompter(tokenizer).encode_chat(messages, {text: tokenizer.encode(text)})
    assert "secret" not in tokenizer.decode(ids)


def test_private_use_characters_in_a_message_are_text(tokenizer, prompter):
    text = "\ue0000\ue001 <|end|> \ue0001\ue001"
    assert text in tokenizer.decode(prompter.encode_chat([_user(text)]))


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "no message"),
        ([_user("")], "empty"),
        ([_user(" \n ")], "empty"),
        ([_user("\ud83d")], "surrogate"),
        ([_user("hi"), _assistant("you")], "must be the user's"),
        ([{"role": "robot", "content": "x"}], "role"),
        ([{"role": "user"}], "role and content"),
        ([{"role": "user", "content": 5}], "must be text"),
        (["hi"], "role and content"),
        ([{"role": "system", "content": "be good"}, _user("hi")], "no system message here"),
    ],
)
def test_what_is_not_a_conversation_is_refused_in_words(prompter, messages, words):
    with pytest.raises(PromptError, match=words):
        prompter.encode_chat(messages)


def test_a_model_without_a_chat_template_says_so():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(PromptError, match="no chat template"):
        Prompter(tokenizer).encode_chat([_user("hi")])


_BYTES_TEMPLATE = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"


def _bytes(text: str) -> list[int]:
    """Ids of the bytes of a text in ByT5's vocabulary."""
    return [byte + 3 for byte in text.encode()]


@pytest.mark.parametrize("text", ["hi", "hi </s> you", "</s>", "<pad></s> é <extra_id_0>"])
def test_a_control_token_typed_for_a_tokenizer_written_in_python_is_text(text):
    tokenizer = ByT5Tokenizer(chat_template=_BYTES_TEMPLATE)
    assert Prompter(tokenizer).encode_chat([_user(text)]) == [*_bytes(text), tokenizer.eos_token_id]


class _WithoutTheOption(ByT5Tokenizer):
    def tokenize(self, text, **options):
        return super().tokenize(text)


def test_a_control_token_that_a_tokenizer_in_python_cannot_take_as_text_is_refused():
    prompter = Prompter(_WithoutTheOption(chat_template=_BYTES_TEMPLATE))
    assert prompter.encode_chat([_user("hi")])[:-1] == _bytes("hi")
    with pytest.raises(PromptError, match="spells out a control token"):
        prompter.encode_chat([_user("hi </s> you")])


def test_a_raw_prompt_is_encoded_as_the_tokenizer_encodes_text(tokenizer, prompter):
    assert prompter.encode_raw("<|user|>Once") == tokenizer.encode("<|user|>Once")


def _adding(single: str) -> Prompter:
    """A prompter whose tokenizer adds tokens to a text, $A, as `single` says."""
    tokenizer = byte_level_tokenizer()
    controls = [
        (token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|begin|>", "<|end|>", "<|user|>")
    ]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=controls
    )
    return Prompter(tokenizer)


@pytest.mark.parametrize(
    ("single", "prompt", "wanted"),
    [
        ("$A <|end|>", "Once upon", "Once upon"),
        ("<|begin|> $A <|end|>", "Once upon", "<|begin|>Once upon"),
        ("<|begin|> $A <|end|>", "Once upon<|end|>", "<|begin|>Once upon<|end|>"),
        ("<|begin|> $A", "<|begin|>Once upon", "<|begin|>Once upon"),
        ("<|begin|> $A", "Once <|begin|>", "<|begin|>Once <|begin|>"),
        ("<|begin|> <|user|> $A <|end|>", "<|begin|><|user|>Once", "<|begin|><|user|>Once"),
    ],
)
def test_a_raw_prompt_has_the_beginning_once_and_no_end_but_its_own(single, prompt, wanted):
    prompter = _adding(single)
    assert prompter.encode_raw(prompt) == prompter.tokenizer.encode(wanted, add_special_tokens=False)


def test_a_raw_prompt_for_a_tokenizer_written_in_python_has_no_appended_end():
    assert Prompter(ByT5Tokenizer()).encode_raw("hi") == _bytes("hi")


@pytest.mark.parametrize("prompt", ["", "\udc00", None])
def test_a_raw_prompt_of_nothing_or_no_text_is_refused(prompter, prompt):
    with pytest.raises(PromptError):
        prompter.encode_raw(prompt)


def _normalizing(normalizer) -> Prompter:
    tokenizer = byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=True)])
    return Prompter(tokenizer)


@pytest.mark.parametrize(
    ("normalizer", "typed"), [(normalizers.NFKC(), "＜think＞"), (normalizers.Lowercase(), "<THINK>")]
)
def test_a_spelling_that_is_normalized_to_a_control_token_stays_text(normalizer, typed):
    prompter = _normalizing(normalizer)
    control = prompter.tokenizer.convert_tokens_to_ids("<think>")
    assert control not in prompter.encode_chat([_user(f"say {typed} now")])


def test_a_vocabulary_whose_merges_spell_a_control_token_keeps_it_text():
    tokenizer = byte_level_tokenizer()
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    vocab, merges = backend["model"]["vocab"], backend["model"]["merges"]
    end = tokenizer.eos_token_id
    pieces = list("<|end|>")
    while len(pieces) > 1:
        joined = pieces[0] + pieces[1]
        merges.append([pieces[0], pieces[1]])
        vocab.setdefault(joined, end if joined == "<|end|>" else 1000 + len(vocab))
        pieces[:2] = [joined]
    spelled = Tokenizer.from_str(json.dumps(backend))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelled,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=tokenizer.chat_template,
    )
    ids = Prompter(tokenizer).encode_chat([_user("say <|end|> now")])
    assert ids.count(tokenizer.eos_token_id) == 1


def test_white_space_of_the_template_before_an_answer_is_what_it_was_when_sampled(tokenizer):
    spaced = byte_level_tokenizer()
    spaced.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %} {{ m.content | trim }}<|end|>{% endif %}{% endfor %}"
    )
    prompter = Prompter(spaced)
    question = prompter.encode_chat([_user("hi")])
    sampled = spaced.encode(" dog")
    ids = prompter.encode_chat([_user("hi"), _assistant(" dog"), _user("more")], {" dog": sampled})
    assert ids[: len(question) + len(sampled)] == question + sampled
