"""A trace to JSON and back, and what is not one refused by name."""

import json

import pytest

from specdec_core.metrics import summarize
from specdec_core.trace import Alternative, Round, Token


@pytest.fixture
def rnd() -> Round:
    likely = [Alternative(5, "a", 0.5, 0.25), Alternative(9, "b", 0.2, 0.0)]
    tokens = [
        Token(5, "a", "accepted", 0.5, 0.25, likely, likely[:1]),
        Token(6, "", "correction", 0.1, None, [Alternative(6, "", 0.1)], []),
    ]
    plain = Round(1, 3, 2, "fixed", tokens, "a", 0.1, 0.2, 0.01)
    stats = summarize([plain], time_to_first_token_s=0.2, prompt_tokens=4, seed=3)
    return Round(1, 3, 2, "fixed", tokens, "a", 0.1, 0.2, 0.01, "eos", stats)


def test_a_round_comes_back_from_json_equal(rnd):
    assert Round.from_dict(json.loads(json.dumps(rnd.to_dict()))) == rnd


def test_emitted_and_drafted_tokens_are_told_apart(rnd):
    assert [token.id for token in rnd.emitted] == [5, 6]
    assert [token.id for token in rnd.drafted] == [5]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.pop("gamma"), "Missing field in a round: gamma"),
        (lambda data: data.update(speed=3), "Unknown field in a round: speed"),
        (lambda data: data["tokens"][0].pop("id"), "Missing field in a token: id"),
        (lambda data: data["stats"].pop("rounds"), "Missing field in a stats: rounds"),
        (lambda data: data.update(tokens=["x"]), "token must be a JSON object"),
        (lambda data: data["tokens"][0].update(alternatives=3), "alternatives of a token must be a list"),
        (
            lambda data: data["tokens"][0].update(drafter_alternatives=[4]),
            "An alternative must be a JSON object",
        ),
        (lambda data: data["tokens"][0]["alternatives"][0].pop("text"), "Missing field in an alternative"),
        (lambda data: data["tokens"][0]["alternatives"][0].update(x=1), "Unknown field in an alternative"),
    ],
)
def test_what_is_not_a_round_is_refused_by_name(rnd, change, said):
    data = json.loads(json.dumps(rnd.to_dict()))
    change(data)
    with pytest.raises(ValueError, match=said):
        Round.from_dict(data)


def test_something_else_than_an_object_is_refused():
    with pytest.raises(ValueError, match="JSON object"):
        Round.from_dict([1, 2])
