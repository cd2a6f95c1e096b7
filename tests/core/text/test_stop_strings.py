"""Stop strings with special tokens, and across characters that are held back."""

import pytest

from specdec_core.text.detokenization import AnswerText
from tests.support.tiny_pair import byte_level_tokenizer
from tests.support.tokenizer_families import LLAMA, family


@pytest.fixture(scope="module")
def tokenizer():
    return byte_level_tokenizer()


def _read(tokenizer, text, stop, eos_ids=()):
    """The text, the number of ids that were taken, their number in all, and the reason."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    answer = AnswerText(tokenizer, tokenizer.encode("Once", add_special_tokens=False), eos_ids, stop)
    count, reason = answer.feed(ids)
    return answer.take(final=True), count, len(ids), reason


def test_a_stop_string_that_is_one_special_token_ends_the_answer_at_it(tokenizer):
    text, count, _, reason = _read(tokenizer, " upon<|user|> a time", ["<|user|>"])
    assert (text, reason) == (" upon", "stop")
    assert count == len(tokenizer.encode(" upon<|user|>", add_special_tokens=False))


@pytest.mark.parametrize("stop", ["<|end|><|user|>", "n<|end|>", " upon<|end|><|user|> a", "<|user|> a t"])
def test_special_tokens_in_a_stop_string_match_amid_text(tokenizer, stop):
    spelled = " upon<|end|><|user|> a time"
    text, _, _, reason = _read(tokenizer, spelled, [stop])
    assert reason == "stop"
    assert text == spelled[: spelled.index(stop)].replace("<|end|>", "").replace("<|user|>", "")


def test_special_tokens_that_no_stop_string_follows_leave_no_trace(tokenizer):
    spelled = " upon<|end|> a<|user|> time<|end|>"
    text, count, total, reason = _read(tokenizer, spelled, ["<|end|>!", "<|user|><|end|>"])
    assert (text, count, reason) == (" upon a time", total, None)


def test_an_eos_that_is_a_stop_string_too_is_an_eos(tokenizer):
    text, _, _, reason = _read(tokenizer, " upon<|end|>", ["<|end|>"], {tokenizer.eos_token_id})
    assert (text, reason) == (" upon", "eos")


def test_a_control_token_that_is_not_flagged_special_is_a_stop_string_as_text(tokenizer):
    text, _, _, reason = _read(tokenizer, " upon<think> a", ["<think>"])
    assert (text, reason) == (" upon", "stop")


@pytest.mark.parametrize("stop", ["\n", "é\n", "🦊"])
def test_a_stop_string_of_byte_tokens_ends_the_answer_at_its_last_byte(stop):
    tokenizer = family(LLAMA)
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "aé\n🦊\n".encode()]
    answer = AnswerText(tokenizer, tokenizer.encode("the", add_special_tokens=False), (), [stop])
    count, reason = answer.feed(ids)
    before = "aé\n🦊\n"[: "aé\n🦊\n".index(stop)]
    assert (answer.take(final=True), reason) == (before, "stop")
    assert count == len((before + stop).encode())


def test_special_token_as_stop_in_a_tokenizer_written_in_python():
    tokenizer = family("bytes in Python")
    text, count, total, reason = _read(tokenizer, "héllo</s>x", ["</s>"])
    assert (text, reason) == ("héllo", "stop")
    assert count == total - 1
