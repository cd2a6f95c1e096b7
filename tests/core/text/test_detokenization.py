"""Ids to text as it grows: never half a character, stop strings found wherever they fall."""

import pytest

from specdec_core.text.detokenization import AnswerText
from tests.support.tiny_pair import byte_level_tokenizer

TEXTS = ["Once upon a time", "naïve 漢字 🙂👍🏽 end", "  spaces\n\n", "🙂"]


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


def _answer(tokenizer, stop=()):
    return AnswerText(tokenizer, [], {tokenizer.eos_token_id}, list(stop))


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_the_text_and_none_is_half_a_character(tokenizer, text):
    answer = _answer(tokenizer)
    emitted = []
    for token_id in tokenizer.encode(text):
        answer.feed([token_id])
        emitted.append(answer.take())
    emitted.append(answer.take(final=True))
    assert "".join(emitted) == text
    assert not any("\ufffd" in piece for piece in emitted)


def test_bytes_that_never_become_a_character_are_shown_at_the_end(tokenizer):
    answer = _answer(tokenizer)
    answer.feed(tokenizer.encode("a🙂")[:-1])
    assert answer.take() == "a"
    assert answer.take(final=True) == "\ufffd"


def test_a_stray_byte_does_not_hold_back_the_text_after_it(tokenizer):
    answer = _answer(tokenizer)
    answer.feed([tokenizer.encode("🙂")[0], *tokenizer.encode("Once")])
    assert answer.take() == "\ufffdOnce"


def test_the_eos_ends_the_answer_and_shows_nothing(tokenizer):
    answer = _answer(tokenizer)
    ids = tokenizer.encode("Once")
    assert answer.feed([*ids, tokenizer.eos_token_id, *ids]) == (len(ids) + 1, "eos")
    assert answer.take(final=True) == "Once"


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_stop_string_is_found_however_it_is_cut_into_feeds(tokenizer, cut):
    ids = tokenizer.encode("Once upon a time there was")
    answer = _answer(tokenizer, ["a time"])
    emitted, reason = "", None
    for at in range(0, len(ids), cut):
        _, reason = answer.feed(ids[at : at + cut])
        emitted += answer.take(final=reason is not None)
        if reason:
            break
    assert (emitted, reason) == ("Once upon ", "stop")


def test_what_might_begin_a_stop_string_is_held_back_and_then_shown(tokenizer):
    answer = _answer(tokenizer, ["upon X"])
    answer.feed(tokenizer.encode("Once upon"))
    assert answer.take() == "Once "
    answer.feed(tokenizer.encode(" a"))
    assert answer.take() == "upon a"


def test_what_is_held_back_is_shown_where_the_answer_ends(tokenizer):
    answer = _answer(tokenizer, ["upon X"])
    answer.feed(tokenizer.encode("Once upon"))
    assert answer.take(final=True) == "Once upon"


def test_the_earliest_of_several_stop_strings_counts(tokenizer):
    answer = _answer(tokenizer, ["time", "upon"])
    count, reason = answer.feed(tokenizer.encode("Once upon a time"))
    assert (answer.take(final=True), reason) == ("Once ", "stop")
    assert count < len(tokenizer.encode("Once upon a time"))


def test_a_draft_that_does_not_stand_leaves_no_trace(tokenizer):
    answer = _answer(tokenizer)
    answer.feed(tokenizer.encode("Once"))
    answer.feed(tokenizer.encode(" upon"))
    assert "".join(answer.dropped(tokenizer.encode(" there"))) == " there"
    assert answer.take() == "Once upon"


def test_dropped_drafts_continue_the_text_before_the_correction_and_never_show_half_a_character(tokenizer):
    answer = _answer(tokenizer)
    accepted, correction = tokenizer.encode("Once"), tokenizer.encode("🙂")[0]
    answer.feed([*accepted, correction])
    drafts = tokenizer.encode(" 漢dog")
    pieces = answer.dropped(drafts)
    assert "".join(pieces) == " 漢dog"
    assert not any("\ufffd" in piece for piece in pieces)
