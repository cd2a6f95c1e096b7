"""Thoughts before an answer: told apart from its text however it comes, and the traits of templates."""

import pytest
from tokenizers import decoders

import specdec_core as sd
from specdec_core.text.detokenization import AnswerText
from specdec_core.text.prompting import Prompter
from specdec_core.text.template_probe import probe_template
from specdec_core.text.thoughts import ThoughtSplit, ThoughtTags
from tests.support.families import FAMILIES
from tests.support.thinking_model import ANSWER, THOUGHT, save_thinking_model
from tests.support.tiny_pair import byte_level_tokenizer

TAGS = ThoughtTags("<think>", "</think>")
CASES = {
    "<think>\nhm, so\n\nit is.\n</think>\n\nYes <b>.": ("hm, so\n\nit is.", "Yes <b>."),
    "\n<think>hm</think>Yes": ("hm", "Yes"),
    "<think>\n\n</think>\n\nYes": ("", "Yes"),
    "<think>a < b </thin k> c</think> Yes </think> no": ("a < b </thin k> c", "Yes </think> no"),
    "<think>without an end  ": ("without an end", ""),
    "<think>cut in its end</thi": ("cut in its end</thi", ""),
    "  Yes, <think>no</think>": ("", "  Yes, <think>no</think>"),
    "<thin ice>": ("", "<thin ice>"),
    "<thi": ("", "<thi"),
    "\n \n": ("", "\n \n"),
    "": ("", ""),
}


def _split(parts, opened: bool = False) -> tuple[str, str]:
    split, thought, answer = ThoughtSplit(TAGS, opened), "", ""
    for part in parts:
        more = split.add(part)
        thought, answer = thought + more[0], answer + more[1]
    rest = split.finish()
    return thought + rest[0], answer + rest[1]


@pytest.mark.parametrize("text", CASES)
def test_a_text_is_split_the_same_however_it_is_cut(text):
    assert _split([text]) == CASES[text]
    assert _split(text) == CASES[text]
    for at in range(len(text)):
        assert _split([text[:at], text[at:]]) == CASES[text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hm\n</think>\n\nYes", ("hm", "Yes")),
        ("\n\nhm", ("hm", "")),
        ("</think>Yes", ("", "Yes")),
    ],
)
def test_a_thought_that_the_prompt_opened_needs_no_opening_tag(text, expected):
    assert _split([text], opened=True) == _split(text, opened=True) == expected


def test_text_comes_as_soon_as_it_is_no_tag():
    split = ThoughtSplit(TAGS, opened=False)
    assert split.add("<think>I am") == ("I am", "")
    assert split.add(" here </") == (" here", "")
    assert split.add("b> now") == (" </b> now", "")
    assert split.add("</think>\n") == ("", "")
    assert not split.answers
    assert split.add("So") == ("", "So")
    assert split.answers


_ASK = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
)
_CLOSES = "{% if enable_thinking is defined and not enable_thinking %}<think>\n</think>{% endif %}{% endif %}"
TEMPLATES = {
    "a switch that closes": (
        _ASK + _CLOSES,
        "enable_thinking",
        set(),
    ),
    "a switch that opens": (
        _ASK + "{% if thinking %}<think>\n{% else %}</think>{% endif %}{% endif %}",
        "thinking",
        {"on"},
    ),
    "always open": (_ASK + "<think>\n{% endif %}{# </think> #}", None, {"auto", "on", "off"}),
    "a history without": (_ASK + "{% endif %}{# </think>, enable_thinking #}", None, set()),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_switch_and_tags_of_a_template(name):
    template, switch, opened = TEMPLATES[name]
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = template
    thinking = probe_template(tokenizer).thinking
    assert thinking is not None
    assert (thinking.switch, thinking.tags, thinking.opened) == (switch, TAGS, opened)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_templates_of_models_that_think_have_such_traits(family):
    assert (probe_template(FAMILIES[family].tokenizer()).thinking is not None) == (family == "qwen3")


def test_the_word_thinking_makes_no_switch():
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = _ASK + "{% endif %}{# thinking #}"
    assert probe_template(tokenizer).thinking is None


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> sd.Engine:
    return sd.Engine.load(target=save_thinking_model(tmp_path_factory.mktemp("thinking")), device="cpu")


def _settings(**changed) -> sd.Settings:
    return sd.Settings(
        **{"temperature": 0.0, "max_new_tokens": 40, "gamma": 3, "drafting": "ngram", **changed}
    )


ASK = [{"role": "user", "content": "Is it?"}]


@pytest.mark.parametrize("thinking", ["auto", "on"])
def test_the_thought_is_apart_from_the_text_and_counted(engine, thinking):
    result = engine.generate(ASK, _settings(thinking=thinking))
    assert (result.thought, result.text, result.finish_reason) == (THOUGHT, ANSWER, "eos")
    decode = engine.pair.tokenizer.decode
    assert decode(result.token_ids[: result.stats.thought_tokens]) == f"<think>{THOUGHT}</think>\n\n"
    assert result.stats.new_tokens == len(result.token_ids)


def test_switched_off_there_is_none(engine):
    result = engine.generate(ASK, _settings(thinking="off"))
    assert (result.thought, result.text, result.stats.thought_tokens) == ("", ANSWER, 0)
    assert engine.pair.tokenizer.decode(result.prompt_token_ids).endswith("<think>\n\n</think>\n\n")


def test_it_is_kept_out_of_the_next_prompt_and_the_answer_keeps_its_sampled_ids(engine):
    session = engine.session()
    first = engine.generate(ASK, _settings(), session)
    answer = first.token_ids[first.stats.thought_tokens : -1]
    assert session.sampled == {ANSWER: answer}
    messages = [*ASK, {"role": "assistant", "content": first.text}, {"role": "user", "content": "Sure?"}]
    second = engine.generate(messages, _settings(), session)
    prompt = engine.pair.tokenizer.decode(second.prompt_token_ids)
    assert THOUGHT not in prompt
    assert f"assistant\n{ANSWER}<|im_end|>" in prompt
    assert second.text == ANSWER


def test_a_limit_within_the_thought_leaves_no_text(engine):
    result = engine.generate(ASK, _settings(max_new_tokens=2))
    assert result.text == ""
    assert THOUGHT.startswith(result.thought)
    assert (result.stats.thought_tokens, result.finish_reason) == (2, "length")


def test_a_raw_prompt_has_all_of_its_text(engine):
    raw = engine.generate("<|im_start|>assistant\n", _settings())
    assert raw.text == f"<think>{THOUGHT}</think>\n\n{ANSWER}"
    assert (raw.thought, raw.stats.thought_tokens) == ("", 0)


def test_transformers_lane_splits_it_too(engine):
    rounds = list(engine.peer_stream(ASK, _settings(), peer="generate"))
    assert "".join(rnd.thought for rnd in rounds) == THOUGHT
    assert "".join(rnd.text for rnd in rounds) == ANSWER
    assert rounds[-1].stats.thought_tokens == engine.generate(ASK, _settings()).stats.thought_tokens


def test_the_stream_s_parts_are_the_whole(engine):
    rounds = list(engine.stream(ASK, _settings(gamma=0)))
    assert "".join(rnd.thought for rnd in rounds) == THOUGHT
    assert next(rnd.text for rnd in rounds if rnd.text) == ANSWER[0]
    assert all(sd.Round.from_dict(rnd.to_dict()) == rnd for rnd in rounds)


def test_a_template_without_a_switch_refuses_one(engine):
    assert engine.info.can_switch_thinking
    stories = sd.Engine.load("stories", device="cpu")
    assert not stories.info.can_switch_thinking
    for thinking in ("on", "off"):
        with pytest.raises(sd.SettingsError, match='thinking must be "auto" with this pair'):
            stories.generate(ASK, sd.Settings(thinking=thinking))


@pytest.mark.parametrize("opening", ["[THINK]", "<seed:think>", "<think>"])
def test_tags_that_are_special_tokens_are_seen_too(tmp_path, opening):
    special = sd.Engine.load(target=save_thinking_model(tmp_path, opening, special=True), device="cpu")
    for gamma in (0, 3):
        result = special.generate(ASK, _settings(gamma=gamma))
        assert (result.thought, result.text, result.stats.thought_tokens) == (THOUGHT, ANSWER, 7)
    off = special.generate(ASK, _settings(thinking="off"))
    assert (off.thought, off.text, off.stats.thought_tokens) == ("", ANSWER, 0)


def _whole_text_tokenizer():
    """A tokenizer whose decoder replaces text across tokens, so that none has a text of its own."""
    tokenizer = byte_level_tokenizer()
    steps = [decoders.ByteLevel(), decoders.Replace("zzq", "zq")]
    tokenizer.backend_tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


@pytest.mark.parametrize("opened", [True, False])
def test_a_thought_is_counted_where_tokens_have_no_text_of_their_own(opened):
    tokenizer = _whole_text_tokenizer()
    thought = ("" if opened else "<think>") + "so</think>"
    ids = tokenizer.encode(thought + "\n\nYes.", add_special_tokens=False)
    text = AnswerText(tokenizer, [5], (), [], tags=TAGS, thought_opened=opened)
    text.feed(ids[:4])
    text.feed(ids[4:])
    assert (text.take(final=True), text.thought) == ("Yes.", "so")
    assert text.thought_tokens == len(tokenizer.encode(thought, add_special_tokens=False))


def test_a_switch_counts_where_a_message_is_checked_for_what_the_template_leaves_out():
    """A template that keeps twelve characters of a message, and thinks unless it is told not to."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content[:12] }}{% endfor %}<|assistant|>"
        "{% if enable_thinking is defined and not enable_thinking %}assistant <think></think>{% endif %}"
    )
    prompter = Prompter(tokenizer)
    for thinking in ("auto", "on", "off"):
        with pytest.raises(sd.PromptError, match="leaves out a part of your message"):
            prompter.encode_chat([{"role": "user", "content": "hello there assistant"}], thinking=thinking)
