"""Streamed text is the tokenizer's decode of all ids: every family, any Unicode, any split, any ids."""

from functools import cache

import pytest
from hypothesis import given, settings, strategies as st
from transformers import ByT5Tokenizer

from specdec_core.text.detokenization import AnswerText
from tests.support.tokenizer_families import FAMILIES, LLAMA, family

BYTE_FALLBACK = [name for name in FAMILIES if name.startswith("byte fallback")]
TEXTS = st.text(
    st.sampled_from("🦊🐻é漢ก𓀀a. \n\ufffd👍🏽\u200d") | st.characters(exclude_categories=["Cs"]), max_size=12
)


@cache
def _ids(name: str) -> list[int]:
    return sorted(family(name).get_vocab().values())


def _decode(tokenizer, ids) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _streamed(tokenizer, before, rounds) -> str:
    answer, text = AnswerText(tokenizer, before, (), []), ""
    for ids in rounds:
        answer.feed(ids)
        text += answer.take()
    return text + answer.take(final=True)


@st.composite
def _answers(draw, name: str) -> list[int]:
    """Ids of texts, and ids as no text has them, cut at any place."""
    tokenizer = family(name)
    some = draw(st.lists(st.sampled_from(_ids(name)), min_size=1, max_size=4))
    encoded = TEXTS.map(lambda text: tokenizer.encode(text, add_special_tokens=False))
    parts = draw(
        st.lists(encoded | st.lists(st.sampled_from(some) | st.sampled_from(_ids(name)), max_size=30))
    )
    ids = [token_id for part in parts for token_id in part]
    return ids[: draw(st.integers(0, len(ids)))] if draw(st.booleans()) else ids


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=60, derandomize=True, deadline=None, database=None)
@given(data=st.data())
def test_streamed_text_is_the_decoded_text(name, data):
    tokenizer = family(name)
    ids = data.draw(_answers(name))
    special = tokenizer.eos_token_id or _ids(name)[0]
    questions = [[], tokenizer.encode("the dog", add_special_tokens=False), [special] * 9]
    before = data.draw(st.sampled_from(questions))
    size = data.draw(st.integers(1, 7))
    question, whole = _decode(tokenizer, before), _decode(tokenizer, before + ids)
    rounds = [ids[at : at + size] for at in range(0, len(ids), size)]
    if whole.startswith(question):  # else the first ids change the end of the question
        assert _streamed(tokenizer, before, rounds) == whole[len(question) :]


@pytest.mark.parametrize("name", ["byte-level", *BYTE_FALLBACK, "bytes in Python"])
@pytest.mark.parametrize(
    "text", ["🦊🐻🦁🐼🐨🐸 done", "𓀀𓀁𓀂𓀃\n𓀄𓀅", "a 🦊 b 👩‍👩‍👧", "ก\ufffdข\ufffd\ufffd\ufffd\ufffd" * 9]
)
def test_several_characters_of_many_bytes_in_a_row_arrive_whole(name, text):
    tokenizer = family(name)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert _streamed(tokenizer, [], [[token_id] for token_id in ids]) == _decode(tokenizer, ids)
    assert text in _decode(tokenizer, ids)


def _counting(tokenizer) -> list[int]:
    """Record the number of ids of every call of the tokenizer's decode."""
    counts: list[int] = []

    class Counting(type(tokenizer)):
        def decode(self, token_ids, **options):
            counts.append(len(token_ids))
            return super().decode(token_ids, **options)

    tokenizer.__class__ = Counting
    return counts


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "words in Python"])
@pytest.mark.parametrize("specials", [0, 12])
def test_an_answer_of_one_token_over_and_over_streams_at_a_constant_cost(name, specials):
    tokenizer = FAMILIES[name]()
    counts = _counting(tokenizer)
    for token_id in {_ids(name)[-1], tokenizer.encode("é", add_special_tokens=False)[0], _ids(name)[5]}:
        counts.clear()
        _streamed(tokenizer, [tokenizer.eos_token_id] * specials, [[token_id]] * 1000)
        assert sum(counts) < 1000 * 100


def test_a_character_that_begins_in_the_question_is_completed():
    tokenizer = family("byte-level")
    fox = tokenizer.encode("🦊")
    assert _streamed(tokenizer, [*tokenizer.encode("a"), *fox[:2]], [fox[2:]]) == "🦊"


def test_a_replacement_character_that_the_question_ends_with_is_not_repeated():
    tokenizer = family("byte-level")
    assert _streamed(tokenizer, tokenizer.encode("a\ufffd"), [tokenizer.encode("bc")]) == "bc"


def test_the_space_after_special_tokens_is_kept():
    """Decoders strip a space at the start of a text, which special tokens leave no trace of."""
    tokenizer = family(LLAMA)
    before = [*tokenizer.encode("the dog", add_special_tokens=False), *[tokenizer.eos_token_id] * 20]
    assert _streamed(tokenizer, before, [tokenizer.encode("▁the", add_special_tokens=False)]) == " the"


def test_a_long_run_of_bytes_is_not_held_back_to_its_end():
    tokenizer = family(LLAMA)
    answer, text = AnswerText(tokenizer, [], (), []), ""
    answer.feed(tokenizer.encode("🦊" * 100, add_special_tokens=False))
    text = answer.take()
    assert len(text) > 60
    assert set(text.lstrip()) == {"🦊"}


def test_bytes_that_are_no_text_are_not_held_back():
    tokenizer = family(LLAMA)
    stray = tokenizer.convert_tokens_to_ids("<0x80>")
    answer = AnswerText(tokenizer, [], (), [])
    answer.feed([stray] * 500)
    assert answer.take() == "\ufffd" * 500


def test_a_byte_token_has_its_character_as_its_piece_before_the_run_ends():
    tokenizer = family(LLAMA)
    ids = [tokenizer.convert_tokens_to_ids("▁the")]
    fox = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "🦊".encode()]
    answer = AnswerText(tokenizer, ids, (), [])
    answer.feed([*fox, *ids])
    assert answer.pieces[:5] == ["", "", "", "🦊", " the"]
    assert answer.dropped(ids) == [" the"]


def test_a_tokenizer_in_python_that_drops_bytes_loses_no_character():
    tokenizer = ByT5Tokenizer()
    ids = tokenizer.encode("飛龍在天" * 20, add_special_tokens=False)
    assert _streamed(tokenizer, tokenizer.encode("say:", add_special_tokens=False), [ids]) == "飛龍在天" * 20
